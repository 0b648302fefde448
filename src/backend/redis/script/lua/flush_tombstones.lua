-- Marks the mappings of ends that `expire_due` announced, and drops the pointers of their ids.
-- KEYS: tombstones. ARGV: limit. Returns {1, number of ends}.
local ends = redis.call('SPOP', KEYS[1], ARGV[1])
if #ends == 0 then
  return { 1, 0 }
end
local mappings, values, pointers = {}, {}, {}
for i, over in ipairs(ends) do
  mappings[i] = P .. ':{' .. string.sub(over, 1, 24) .. '}:m'
  values[i] = string.sub(over, 25)
  pointers[i] = P .. ':sid:' .. string.sub(over, 32)
end
for i, value in ipairs(redis.call('MGET', unpack(mappings))) do
  -- The client may have another session by now.
  if value and #value == MAPPING and string.sub(value, 1, NAMED) == values[i] then
    redis.call('SET', mappings[i], values[i] .. '!', 'PX', GRACE)
  end
end
redis.call('UNLINK', unpack(pointers))
return { 1, #ends }
