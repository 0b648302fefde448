-- Says when to probe clients' sessions.
-- KEYS: schedule. ARGV: for each: "LT" (only if earlier than what is there) or "", cid, milliseconds
-- from now.
-- Returns {1}.
-- Changes nothing, and takes no memory: what follows has to work while Redis is full.
redis.call('ZREM', KEYS[1], '')
local t = now()
local last = 0
for i = 1, #ARGV, 3 do
  local inside = tonumber(ARGV[i + 2])
  if ARGV[i] == 'LT' then
    redis.call('ZADD', KEYS[1], 'LT', t + inside, ARGV[i + 1])
  else
    redis.call('ZADD', KEYS[1], t + inside, ARGV[i + 1])
  end
  last = math.max(last, inside)
end
extend_ttl(KEYS[1], last + GRACE)
return { 1 }
