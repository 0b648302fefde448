-- Gives a lease back, which grants it to the next in line; or leaves the line.
-- KEYS: l, q. ARGV: token, instance, lease ms, prefix of the nodes' channels, cid, alone.
-- Returns {1} (it was the owner's) or {0}.
local l, q = KEYS[1], KEYS[2]
if text_at(l) ~= ARGV[1] then
  -- A line that is no list has nobody in it.
  redis.pcall('LREM', q, 0, ARGV[1] .. '|' .. ARGV[2])
  return { 0 }
end
hand_over(l, q, ARGV[3], ARGV[4], ARGV[5], ARGV[6])
return { 1 }
