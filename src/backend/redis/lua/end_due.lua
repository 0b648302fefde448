-- Ends all sessions that are over, a page at a time: for a server that has all keys, so that one
-- step and one announcement serve many. In a cluster `sweep` and `resolve` do the same.
-- KEYS: due and, for the sweep, by. ARGV: prefix, channel, node, grace, limit, instance, turn ms.
-- Returns {1, ms to the next entry or -1, number looked at, number ended and told} or {0, ms until
-- the turn of the node that sweeps ends}.
local due, by = KEYS[1], KEYS[2]
local prefix, channel, node, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
if by then
  local owner = redis.call('GET', by)
  if owner and owner ~= ARGV[6] then
    return { 0, redis.call('PTTL', by) }
  end
  redis.call('SET', by, ARGV[6], 'PX', ARGV[7])
end
local t = now()
local clients = redis.call('ZRANGEBYSCORE', due, '-inf', t, 'LIMIT', 0, ARGV[5])
local ends, gone, off = {}, {}, {}
for _, cid in ipairs(clients) do
  local key = prefix .. ':{' .. cid .. '}:'
  -- Looking is what makes Redis drop what is over.
  local left = redis.call('PTTL', key .. 's')
  if left >= 0 then
    redis.call('ZADD', due, t + left + 1, cid)
  else
    off[#off + 1] = cid
    local mapped = left == -2 and redis.call('GET', key .. 'm')
    if mapped then
      local gen, sid = string.match(mapped, '^(%d+):(.+)$')
      ends[#ends + 1] = { cid = cid, gen = gen, sid = sid }
      gone[#gone + 1] = key .. 'm'
      gone[#gone + 1] = prefix .. ':sid:' .. sid
      redis.call('SET', key .. 'e', gen, 'PX', grace)
    end
  end
end
if #ends > 0 then
  redis.call('PUBLISH', channel, cjson.encode({
    kind = 'ends', ends = ends, reason = 'expired', node = node }))
  redis.call('UNLINK', unpack(gone))
end
if #off > 0 then
  redis.call('ZREM', due, unpack(off))
end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
local next = -1
if first[2] then
  next = math.max(0, math.floor(tonumber(first[2]) - t))
end
return { 1, next, #clients, #ends }
