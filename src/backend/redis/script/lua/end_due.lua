-- Ends all sessions that are over, a page at a time: for a server that has all keys, so that one
-- step and one announcement serve many. In a cluster `sweep` and `resolve` do the same.
-- KEYS: due, told and, for the sweep, by, asked. ARGV: prefix, channel, node, grace, limit,
-- instance, turn ms.
-- Returns {1, ms to the next entry or -1, number looked at, number ended and told} or {0, ms until
-- to ask again, for another node sweeps}.
local due, told, by, asked = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local prefix, channel, node, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- Changes nothing, and takes no memory: ending sessions has to work while Redis is full.
redis.call('ZREM', due, '')
local wait = by and take_turn(by, asked, ARGV[6], ARGV[7])
if wait then
  return { 0, wait }
end
local t = now()
local clients = redis.call('ZRANGEBYSCORE', due, '-inf', t, 'LIMIT', 0, ARGV[5])
local count, ends = #clients, {}
if count > 0 then
  local records, mappings = {}, {}
  local before = prefix .. ':{'
  for i, cid in ipairs(clients) do
    records[i] = before .. cid .. '}:s'
    mappings[i] = before .. cid .. '}:m'
  end
  -- Looking is what makes Redis drop what is over. Most pages have nothing else: all are over.
  local over, off = clients, nil
  if redis.call('EXISTS', unpack(records)) > 0 then
    over, off = {}, {}
    local longest = nil
    for i, cid in ipairs(clients) do
      local left = redis.call('PTTL', records[i])
      if left == -1 then
        -- Somebody took its time to live away: the end that it names counts.
        local exp = redis.pcall('HGET', records[i], 'exp')
        left = math.floor((type(exp) == 'string' and tonumber(exp) or 0) - t)
        redis.call('PEXPIRE', records[i], math.max(left, 0))
        if left <= 0 then
          left = -2
        end
      end
      over[i] = left == -2
      if left >= 0 then
        redis.call('ZADD', due, t + left + 1, cid)
        longest = math.max(longest or 0, left)
      else
        off[#off + 1] = cid
      end
    end
    if longest then
      keep(due, longest + 1 + grace)
    end
  end
  for i, mapping in ipairs(redis.call('MGET', unpack(mappings))) do
    -- Neither what is told, nor what others wrote, which would make the whole page unreadable.
    if over[i] and mapping and string.find(mapping, '^%d+:[%w_-]+$') then
      ends[#ends + 1] = clients[i] .. ':' .. mapping
    end
  end
  if #ends > 0 then
    -- Nothing in the ends has to be escaped.
    redis.call('PUBLISH', channel, '{"kind":"ends","reason":"expired","node":' .. cjson.encode(node)
      .. ',"ends":"' .. table.concat(ends, ' ') .. '"}')
    -- To mark each mapping takes longer than all the rest: that is left to `tidy`.
    redis.call('SADD', told, unpack(ends))
    keep(told, grace)
  end
  if not off then
    redis.call('ZREMRANGEBYRANK', due, 0, count - 1)
  elseif #off > 0 then
    redis.call('ZREM', due, unpack(off))
  end
end
local first = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
local next = -1
if first[2] then
  next = math.max(0, math.floor(tonumber(first[2]) - t))
end
return { 1, next, count, #ends }
