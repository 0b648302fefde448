-- Writes a session that is still what the writer read, and whose end stays where it is: the node has
-- prepared all of it. The path that nearly all writes take.
-- KEYS: s. ARGV: how the record begins that was read, the new record, channel, message.
-- Returns {1} (done), {2, now, record} (another version, generation or end) or {3} (no record).
local s = KEYS[1]
if redis.pcall('GETRANGE', s, 0, 19) ~= ARGV[1] then
  return what_there_is(s)
end
redis.call('SET', s, ARGV[2], 'KEEPTTL')
redis.call('PUBLISH', ARGV[3], ARGV[4])
return { 1 }
