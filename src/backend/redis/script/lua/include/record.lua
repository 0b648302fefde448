-- The record of a session, one string: a header of fixed width, the ids it had before, the data.
-- `record.rs` has the same layout and describes it.

local LAYOUT, HEADER, PREVIOUS = '>BBc7I5I6c43I6I5I6I5', 85, 49

-- A record without its data; nil if there is none that can be read.
local function parse(raw)
  if type(raw) ~= 'string' or #raw < HEADER then
    return nil
  end
  local r = {}
  r.format, r.flags, r.gen, r.v, r.exp, r.sid, r.created, r.ttl, r.hinted, r.own =
    struct.unpack(LAYOUT, raw)
  if r.format > 1 then
    -- A newer version of this crate wrote it: not ours to judge, so nothing is changed.
    error('FORMAT a session was written by a newer version of axum-io-session')
  end
  local body = HEADER + math.floor(r.flags / 16) * PREVIOUS
  if r.format < 1 or #raw < body then
    return nil
  end
  r.sealed = r.flags % 2 == 1
  r.mode = math.floor(r.flags / 2) % 8
  r.previous = string.sub(raw, HEADER + 1, body)
  return r
end

-- Reads the header alone: a change needs no more.
local function head(s)
  return parse(redis.pcall('GETRANGE', s, 0, 476))
end

local function pack(r)
  r.flags = #r.previous / PREVIOUS * 16 + r.mode * 2 + (r.sealed and 1 or 0)
  return struct.pack(LAYOUT, 1, r.flags, r.gen, r.v, r.exp, r.sid, r.created, r.ttl, r.hinted,
    r.own)
end

-- The time to live that a write at `age` gives.
local function ttl_for(r, age)
  local idle = r.sealed and IDLE_SEALED or IDLE_OPEN
  if r.mode == 2 then
    idle = r.own
  end
  if CAP > 0 then
    return math.min(idle, CAP - age)
  end
  return idle
end

-- Sets the end that a write at `t` gives. Returns false if the end that is there is as good: moving
-- it by less than a hundredth of the life is not worth a command, and a notification of Redis.
local function set_expiry(r, t, ttl)
  local moved = t + ttl - r.exp
  if r.ttl == ttl and moved >= 0 and moved <= math.min(ttl / 100, 60000) then
    return false
  end
  r.ttl, r.exp = ttl, t + ttl
  return true
end
