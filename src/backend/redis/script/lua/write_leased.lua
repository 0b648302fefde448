-- `write` by the owner of a lease, which it may give back with it.
-- KEYS: s. ARGV: how the record begins that was read, the new record, channel, message, token, cid if
-- the lease is given back or "".
-- Returns {1}, {2, now, record} or {3} as `write`, or {4} (lease lost).
local s = KEYS[1]
local raw = redis.pcall('GETRANGE', s, 0, 19)
if redis.pcall('GET', string.sub(s, 1, -2) .. 'l') ~= ARGV[5] then
  return { 4 }
end
if raw ~= ARGV[1] then
  return what_there_is(s)
end
redis.call('SET', s, ARGV[2], 'KEEPTTL')
redis.call('PUBLISH', ARGV[3], ARGV[4])
if ARGV[6] ~= '' then
  grant_next(s, ARGV[6])
end
return { 1 }
