-- What all scripts share; it is put in front of each of them.
--
-- A record is the hash `s`: v (version), gen (birth mark), sid, created (ms), ttl (ms), mode
-- (the session's own max age), data (JSON). Its own time to live is the session's life.
-- `m` holds "gen:sid" a while longer, so that an end can still be named. Whoever ends a session
-- deletes `m` in the same step and tells of it, so each end is told once.
-- `hinted` is when the pointer from the session's id to its client was set, for twice the time to
-- live: it has to be set again only once a write comes later than half of that time.
-- Replies begin with a status of ours, never with data: see the Rust side.

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function read(s)
  local f = redis.call('HMGET', s, 'v', 'gen', 'sid', 'created', 'ttl', 'mode', 'data', 'hinted')
  if not f[1] then
    return nil
  end
  return { v = f[1], gen = f[2], sid = f[3], created = f[4], ttl = f[5], mode = f[6], data = f[7], hinted = f[8] }
end

local function reply(status, s, r)
  return { status, now(), redis.call('PTTL', s), r.v, r.gen, r.sid, r.created, r.ttl, r.mode, r.data,
    r.point or 0 }
end

local function tell_end(channel, node, cid, gen, sid, reason)
  redis.call('PUBLISH', channel, cjson.encode({
    kind = 'destroy', cid = cid, gen = gen, sid = sid, reason = reason, node = node }))
end

-- Tells the end of a session whose record is gone, unless it was told.
local function tell_untold(m, channel, node, cid, reason)
  local mapped = redis.call('GET', m)
  if not mapped then
    return false
  end
  redis.call('DEL', m)
  local gen, sid = string.match(mapped, '^(%d+):(.+)$')
  tell_end(channel, node, cid, gen, sid, reason)
  return sid
end

-- The time to live that a write gives; "0" as cap means none.
local function life(idle, cap, age)
  idle, cap = tonumber(idle), tonumber(cap)
  if cap > 0 then
    return math.min(idle, cap - age)
  end
  return idle
end

-- Says whether the pointer has to be set (1), and that it will be.
local function point(s, r, ttl)
  local t = now()
  if not r.hinted or t - tonumber(r.hinted) > ttl / 2 then
    redis.call('HSET', s, 'hinted', t)
    r.point = 1
  end
end

local function write(s, m, r, ttl, grace)
  redis.call('HSET', s, 'v', r.v, 'gen', r.gen, 'sid', r.sid, 'created', r.created,
    'ttl', ttl, 'mode', r.mode, 'data', r.data)
  redis.call('PEXPIRE', s, ttl)
  redis.call('SET', m, r.gen .. ':' .. r.sid, 'PX', ttl + grace)
  r.ttl = ttl
  point(s, r, ttl)
end
