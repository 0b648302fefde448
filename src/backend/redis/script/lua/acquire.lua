-- Takes a client's lease and reads its session, or queues.
-- KEYS: s. ARGV: token, instance, wait ms, cid.
-- Returns {1, now, record} or {2, now} (granted, with or without a session), {3, ms until the
-- owner's lease ends} (queued), {4} (too many wait) or {5} (the token was given back before). Calling
-- again with the same token is safe, and extends its lease.
local s, token, instance, cid = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local base = string.sub(s, 1, -2)
local l, q = base .. 'l', base .. 'q'
local me = token .. '|' .. instance
-- Its release came by another way, and was faster.
if redis.pcall('SISMEMBER', base .. 'x', token) == 1 then
  return { 5 }
end
local function take()
  -- Takes no memory, so that a lease can be had while Redis is full: ending a session needs one.
  redis.call('PEXPIRE', l, LEASE)
  redis.call('SET', l, token, 'PX', LEASE)
  return token
end
local owner = text_at(l)
if owner and owner ~= token and redis.call('PTTL', l) == -1 then
  -- No lease of ours is without an end.
  redis.call('DEL', l)
  owner = false
end
-- A queue that is no list is not ours.
local first = redis.pcall('LINDEX', q, 0)
if type(first) == 'table' then
  redis.call('DEL', q)
  first = false
end
if not owner then
  -- Free, or its owner never came back: the first in the queue is next, whichever asks.
  if not first or first == me then
    if first then
      redis.call('LPOP', q)
    end
    owner = take()
  else
    grant_next(s, cid)
    -- None: all who stood in the queue are gone.
    owner = redis.call('GET', l) or take()
  end
end
if owner == token then
  redis.call('PEXPIRE', l, LEASE)
  local raw = redis.pcall('GET', s)
  if type(raw) == 'string' then
    return { 1, now(), raw }
  end
  return { 2, now() }
end
-- The queue goes when all who stand in it must have left.
local life = tonumber(ARGV[3]) + LEASE
local longer = redis.call('PTTL', q) < life
if longer then
  redis.call('PEXPIRE', q, life)
end
if not redis.call('LPOS', q, me) then
  if redis.call('LLEN', q) >= QUEUE_LIMIT then
    return { 4 }
  end
  redis.call('RPUSH', q, me)
  if longer then
    redis.call('PEXPIRE', q, life)
  end
end
return { 3, redis.call('PTTL', l) }
