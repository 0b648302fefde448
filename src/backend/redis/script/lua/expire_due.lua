-- Ends all sessions that are over, a page at a time: for a server that has all keys, so that one
-- step and one message serve many. In a cluster `claim_due` and `probe` do the same.
-- KEYS: schedule, tombstones and, for the sweep, leader, candidates. ARGV: node (its length in front),
-- limit, instance, term ms.
-- Returns {1, ms to the next entry or -1, number probed, number ended and announced} or {0, ms until
-- to ask again, for another node sweeps}.
-- Announces a page of expired sessions: to nodes with sockets of a client one by one, and the page to
-- those that hear of all ends. `ends`: client, gen and sid of each.
local function publish_ends(node, ends)
  local channels = {}
  for i, over in ipairs(ends) do
    channels[i] = P .. CLIENT .. string.sub(over, 1, 24)
  end
  local counts = redis.call('PUBSUB', 'NUMSUB', unpack(channels))
  for i, over in ipairs(ends) do
    if tonumber(counts[2 * i]) > 0 then
      redis.call('PUBLISH', channels[i], 'D' .. string.char(1) .. string.sub(over, 1, 24) .. node .. string.sub(over, 25))
    end
  end
  redis.call('PUBLISH', P .. ENDS, 'E' .. string.char(1) .. node .. table.concat(ends))
end

local due, tombstones = KEYS[1], KEYS[2]
local node, limit = ARGV[1], ARGV[2]
-- Changes nothing, and takes no memory: ending sessions has to work while Redis is full.
redis.call('ZREM', due, '')
local wait = KEYS[3] and acquire_leadership(KEYS[3], KEYS[4], ARGV[3], ARGV[4])
if wait then
  return { 0, wait }
end
local t = now()
local clients = redis.call('ZRANGEBYSCORE', due, '-inf', t, 'LIMIT', 0, limit)
local count, ends = #clients, {}
if count > 0 then
  local records, mappings = {}, {}
  for i, cid in ipairs(clients) do
    records[i] = P .. ':{' .. cid .. '}:s'
    mappings[i] = P .. ':{' .. cid .. '}:m'
  end
  -- Looking is what makes Redis drop what is over. Most pages have nothing else: all are over.
  local over, off = clients, nil
  if redis.call('EXISTS', unpack(records)) > 0 then
    over, off = {}, {}
    local longest = nil
    for i, cid in ipairs(clients) do
      local left = redis.call('PTTL', records[i])
      if left == -1 then
        -- Its time to live was taken away: the end that it names counts.
        local r = head(records[i])
        left = r and r.exp - t or 0
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
      extend_ttl(due, longest + 1 + GRACE)
    end
  end
  for i, mapping in ipairs(redis.call('MGET', unpack(mappings))) do
    -- Neither what was announced, nor what others wrote.
    if over[i] and mapping and #mapping == MAPPING and #clients[i] == 24 then
      ends[#ends + 1] = clients[i] .. string.sub(mapping, 1, NAMED)
    end
  end
  if #ends > 0 then
    publish_ends(node, ends)
    -- To mark each mapping takes longer than all the rest: that is left to `flush_tombstones`.
    redis.call('SADD', tombstones, unpack(ends))
    extend_ttl(tombstones, GRACE)
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
