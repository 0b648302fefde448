-- Gives a lease back, which grants it to the next in line; or leaves the line.
-- KEYS: l, q. ARGV: token, node, lease ms, prefix of the nodes' channels.
-- Returns {1} (it was the owner's) or {0}.
local l, q = KEYS[1], KEYS[2]
if redis.call('GET', l) ~= ARGV[1] then
  redis.call('LREM', q, 0, ARGV[1] .. '|' .. ARGV[2])
  return { 0 }
end
local head = redis.call('LPOP', q)
if head then
  local token, node = string.match(head, '^(.-)|(.*)$')
  redis.call('SET', l, token, 'PX', ARGV[3])
  redis.call('PUBLISH', ARGV[4] .. node, token)
else
  redis.call('DEL', l)
end
return { 1 }
