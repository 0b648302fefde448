-- What leads to a session: the mapping, the pointer from its id to its client, and the schedule.
-- In a cluster the last two have other slots, and the node sets them after the script.

-- Lets mapping and pointer live for twice the session's life. It is due again once less than one and
-- a half are left (`hinted` in the record), so that most writes need not; and whenever the end comes
-- earlier, for the mapping says when the session ends at the earliest.
local function set_hints(s, cid, gen, sid, ttl, exp)
  redis.call('SET', string.sub(s, 1, -2) .. 'm', gen .. sid .. struct.pack('>I6', exp), 'PX', 2 * ttl + GRACE)
  if not CLUSTERED then
    redis.call('SET', P .. ':sid:' .. sid, cid, 'PX', 2 * ttl)
  end
end

-- The schedule lives as long as its last entry.
local function extend_ttl(key, life)
  if redis.call('PTTL', key) < life then
    redis.call('PEXPIRE', key, life)
  end
end

-- Says when to probe a session, a moment after its end; `order` "LT": only if earlier than before.
local function schedule(cid, at, left, order)
  if CLUSTERED then
    return
  end
  if order then
    redis.call('ZADD', P .. ':{sweep}:due', order, at + 1, cid)
  else
    redis.call('ZADD', P .. ':{sweep}:due', at + 1, cid)
  end
  extend_ttl(P .. ':{sweep}:due', left + 1 + GRACE)
end
