-- Registers a node for a while, and removes those whose time is over; or removes this node.
-- KEYS: z, h. ARGV: instance, life ms ("0": goodbye), stats (JSON).
-- Returns {1, now}.
local t = now()
local life = tonumber(ARGV[2])
if life > 0 then
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('ZADD', KEYS[1], t + life, ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
  redis.call('PEXPIRE', KEYS[1], life)
  redis.call('PEXPIRE', KEYS[2], life)
else
  redis.call('ZREM', KEYS[1], ARGV[1])
  redis.call('HDEL', KEYS[2], ARGV[1])
end
for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', t, 'LIMIT', 0, 100)) do
  redis.call('ZREM', KEYS[1], dead)
  redis.call('HDEL', KEYS[2], dead)
end
return { 1, t }
