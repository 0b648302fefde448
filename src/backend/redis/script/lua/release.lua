-- Gives a lease back, which grants it to the next in the queue; or leaves the queue.
-- KEYS: s. ARGV: token, instance, cid, "1" if an acquire of the token may come yet.
-- Returns {1} (it was the owner's) or {0}.
local s, token = KEYS[1], ARGV[1]
local base = string.sub(s, 1, -2)
local owned = text_at(base .. 'l') == token
if owned then
  grant_next(s, ARGV[3])
else
  -- A queue that is no list has nobody in it.
  redis.pcall('LREM', base .. 'q', 0, token .. '|' .. ARGV[2])
end
if not owned or ARGV[4] == '1' then
  -- Redis that is full has no room for this: then a lease that comes late runs out.
  redis.pcall('SADD', base .. 'x', token)
  redis.call('PEXPIRE', base .. 'x', GRACE)
end
return { owned and 1 or 0 }
