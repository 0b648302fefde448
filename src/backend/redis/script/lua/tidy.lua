-- Marks the mappings of ends that `end_due` told, and drops the pointers of their ids.
-- KEYS: told. ARGV: prefix, limit. Returns {1, number of ends}.
local prefix = ARGV[1]
local ends = redis.call('SPOP', KEYS[1], ARGV[2])
if #ends == 0 then
  return { 1, 0 }
end
local mappings, values, pointers = {}, {}, {}
for i, told in ipairs(ends) do
  local cid, value, sid = string.match(told, '^([^:]+):(%d+:(.+))$')
  mappings[i] = prefix .. ':{' .. cid .. '}:m'
  values[i] = value
  pointers[i] = prefix .. ':sid:' .. sid
end
for i, value in ipairs(redis.call('MGET', unpack(mappings))) do
  -- The client may have another session by now.
  if value == values[i] then
    -- The rest of its life is the time for which an end can be named.
    redis.call('APPEND', mappings[i], '!')
  end
end
redis.call('UNLINK', unpack(pointers))
return { 1, #ends }
