-- Lists clients whose session may be over, without claiming them.
-- KEYS: schedule. ARGV: limit. Returns {1, client..}.
local clients = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now(), 'LIMIT', 0, ARGV[1])
local answer = { 1 }
for i, client in ipairs(clients) do
  answer[i + 1] = client
end
return answer
