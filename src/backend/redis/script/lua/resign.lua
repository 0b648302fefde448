-- Gives up the right to sweep, and tells the other nodes so: they need not wait for the end of the term.
-- KEYS: leader. ARGV: instance, channel of all nodes, message.
-- Returns {1} or {0} (another node has it).
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return { 0 }
end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return { 1 }
