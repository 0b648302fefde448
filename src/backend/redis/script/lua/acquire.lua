-- Takes a client's lease and reads its session, or queues.
-- KEYS: s, l, q. ARGV: token, instance, lease ms, wait ms, limit, prefix of the nodes' channels,
-- cid, alone.
-- Returns {1, record..} or {2, now} (granted, with or without a session), {3, ms until the owner's
-- lease ends} (queued), {4} (too many wait). Calling again with the same token is safe.
local s, l, q = KEYS[1], KEYS[2], KEYS[3]
local me = ARGV[1] .. '|' .. ARGV[2]
local function take()
  -- Takes no memory, so that a lease can be had while Redis is full: ending a session needs one.
  redis.call('PEXPIRE', l, ARGV[3])
  redis.call('SET', l, ARGV[1], 'PX', ARGV[3])
  return ARGV[1]
end
local owner = text_at(l)
if owner and owner ~= ARGV[1] and redis.call('PTTL', l) == -1 then
  -- No lease of ours is without an end.
  redis.call('DEL', l)
  owner = false
end
-- A line that is no list is not ours.
local head = redis.pcall('LINDEX', q, 0)
if type(head) == 'table' then
  redis.call('DEL', q)
  head = false
end
if not owner then
  -- Free, or its owner never came back: the first in line is next, whoever asks.
  if not head or head == me then
    if head then
      redis.call('LPOP', q)
    end
    owner = take()
  else
    hand_over(l, q, ARGV[3], ARGV[6], ARGV[7], ARGV[8])
    -- None: all who stood in line are gone.
    owner = redis.call('GET', l) or take()
  end
end
if owner == ARGV[1] then
  local r = read(s)
  if r then
    return reply(1, r)
  end
  return { 2, now() }
end
-- The line goes when all who stand in it must have left.
local keep = tonumber(ARGV[4]) + tonumber(ARGV[3])
local longer = redis.call('PTTL', q) < keep
if longer then
  redis.call('PEXPIRE', q, keep)
end
if not redis.call('LPOS', q, me) then
  if redis.call('LLEN', q) >= tonumber(ARGV[5]) then
    return { 4 }
  end
  redis.call('RPUSH', q, me)
  if longer then
    redis.call('PEXPIRE', q, keep)
  end
end
return { 3, redis.call('PTTL', l) }
