-- Lists live nodes.
-- KEYS: z, h. ARGV: none. Returns {1, then for each: ms until it counts as gone, stats (JSON)}.
local t = now()
local answer = { 1 }
for _, node in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], string.format('(%.0f', t), '+inf')) do
  local stats = redis.call('HGET', KEYS[2], node)
  local ends = redis.call('ZSCORE', KEYS[1], node)
  if stats then
    answer[#answer + 1] = math.floor(tonumber(ends) - t)
    answer[#answer + 1] = stats
  end
end
return answer
