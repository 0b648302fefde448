-- Claims clients whose session may be over. One node sweeps at a time; if it dies another takes
-- over, and what it had claimed comes up again.
-- KEYS: schedule, leader, candidates. ARGV: instance, limit, claim ms, term ms.
-- Returns {1, ms to the next entry or -1, client..} or {0, ms until to ask again, for another node
-- sweeps}.
-- Changes nothing, and takes no memory: what follows has to work while Redis is full.
redis.call('ZREM', KEYS[1], '')
local wait = acquire_leadership(KEYS[2], KEYS[3], ARGV[1], ARGV[4])
if wait then
  return { 0, wait }
end
local t = now()
local clients = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t, 'LIMIT', 0, ARGV[2])
local answer = { 1, -1 }
for i, client in ipairs(clients) do
  redis.call('ZADD', KEYS[1], t + tonumber(ARGV[3]), client)
  answer[i + 2] = client
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if first[2] then
  answer[2] = math.max(0, math.floor(tonumber(first[2]) - t))
end
return answer
