-- Gives a lease back, which grants it to the next in the queue; or leaves the queue.
-- KEYS: s. ARGV: token, instance, cid.
-- Returns {1} (it was the owner's) or {0}.
local s = KEYS[1]
local base = string.sub(s, 1, -2)
if text_at(base .. 'l') ~= ARGV[1] then
  -- A queue that is no list has nobody in it.
  redis.pcall('LREM', base .. 'q', 0, ARGV[1] .. '|' .. ARGV[2])
  return { 0 }
end
grant_next(s, ARGV[3])
return { 1 }
