-- Ends all sessions that are over, a page at a time: for a server that has all keys, so that one
-- step and one announcement serve many. In a cluster `sweep` and `resolve` do the same.
-- KEYS: due and, for the sweep, by, asked. ARGV: prefix, channel, node, grace, limit,
-- instance, turn ms.
-- Returns {1, ms to the next entry or -1, number looked at, number ended and told} or {0, ms until
-- to ask again, for another node sweeps}.
local due, by, asked = KEYS[1], KEYS[2], KEYS[3]
local prefix, channel, node, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local wait = by and take_turn(by, asked, ARGV[6], ARGV[7])
if wait then
  return { 0, wait }
end
local t = now()
local clients = redis.call('ZRANGEBYSCORE', due, '-inf', t, 'LIMIT', 0, ARGV[5])
local ends, pointers, off = {}, {}, {}
local longest = nil
if #clients > 0 then
  local records, mappings = {}, {}
  for i, cid in ipairs(clients) do
    local key = prefix .. ':{' .. cid .. '}:'
    records[i] = key .. 's'
    mappings[i] = key .. 'm'
  end
  -- Looking is what makes Redis drop what is over. Most pages have nothing else.
  local some = redis.call('EXISTS', unpack(records)) > 0
  local mapped = redis.call('MGET', unpack(mappings))
  for i, cid in ipairs(clients) do
    local left = some and redis.call('PTTL', records[i]) or -2
    if left >= 0 then
      redis.call('ZADD', due, t + left + 1, cid)
      longest = math.max(longest or 0, left)
    else
      off[#off + 1] = cid
      local sid = left == -2 and string.match(mapped[i] or '', '^%d+:([^!]+)$')
      if sid then
        ends[#ends + 1] = cid .. ':' .. mapped[i]
        pointers[#pointers + 1] = prefix .. ':sid:' .. sid
        -- The rest of its life is the time for which an end can be named.
        redis.call('APPEND', mappings[i], '!')
      end
    end
  end
end
if #ends > 0 then
  redis.call('PUBLISH', channel, cjson.encode({
    kind = 'ends', ends = table.concat(ends, ' '), reason = 'expired', node = node }))
  redis.call('UNLINK', unpack(pointers))
end
if longest then
  keep(due, longest + 1 + grace)
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
