-- What all scripts share; it is put in front of each of them.
--
-- A record is the hash `s`: v (version), gen (birth mark), sid, created, ttl, exp (milliseconds, by
-- the clock of Redis), mode (the session's own max age), sealed ("1" or "0"), prev (the ids it had
-- before, newest first: "sid:until sid:until ..", where `until` is when the id stops opening the
-- session), data (JSON), hinted. Its own time to live is the session's life; `exp` says the same to
-- those who only read fields.
-- `m` holds "gen:sid" a while longer, so that an end can still be named. Whoever finds a session gone
-- appends "!" in the step in which it tells, so that each end is told once; or, where a page of ends
-- is told in one step, puts "cid:gen:sid" into `told`, from where they are marked soon after. Scripts
-- are given `told` as their last key, except in a cluster, where it has another slot.
-- `hinted` is until when the pointer from the session's id to its client lives: it is set for twice the
-- time to live, and again once it has less than one and a half left.
-- The pointer and the list of ends are changed in the same step, but in a cluster, where they have
-- other slots: scripts are given the prefix of all keys, or "" there.
-- Replies begin with a status of ours, never with data: see the Rust side.
--
-- Nothing is announced before it is done: `PUBLISH` is no write, and goes out also where Redis refuses
-- the writes after it. So the first write that can be refused comes first. Redis looks at the first
-- write of a script only: whether it may write at all (it is a replica, lacks replicas, or can't save),
-- and whether it is full, which stops commands that take memory. A script that stores data begins with
-- storing it, and is refused while Redis is full. One that ends a session, gives a lease back or says
-- that a node is there begins with a write that takes no memory, and then may do what it needs.

local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- What can't be read is no record: somebody else wrote it.
local function read(s)
  local f = redis.pcall('HMGET', s, 'v', 'gen', 'sid', 'created', 'ttl', 'mode', 'data', 'hinted',
    'exp', 'sealed', 'prev')
  if f.err then
    return nil
  end
  for i = 1, 11 do
    if not f[i] then
      return nil
    end
  end
  if not (tonumber(f[1]) and tonumber(f[4]) and tonumber(f[5]) and tonumber(f[8])
    and tonumber(f[9])) then
    return nil
  end
  return { v = f[1], gen = f[2], sid = f[3], created = f[4], ttl = f[5], mode = f[6], data = f[7],
    hinted = f[8], exp = f[9], sealed = f[10], prev = f[11] }
end

local function reply(status, r)
  return { status, now(), r.v, r.gen, r.sid, r.created, r.ttl, r.exp, r.mode, r.sealed, r.prev,
    r.data, r.point or 0 }
end

-- Whether an id opens the session: its own, or an earlier one whose time is not over.
local function opens(r, sid)
  if r.sid == sid then
    return true
  end
  for id, till in string.gmatch(r.prev, '([^ :]+):(%d+)') do
    if id == sid then
      return tonumber(till) > now()
    end
  end
  return false
end

-- The earlier ids of a session that gets a new one: `sid` opens it until `till`, which ends the
-- time of the older ones too ("0": none opens it any more). Eight are kept.
local function previous_with(list, sid, till)
  local out = { sid .. ':' .. till }
  for id, old in string.gmatch(list, '([^ :]+):(%d+)') do
    if #out == 8 then
      break
    end
    if tonumber(old) > tonumber(till) then
      old = till
    end
    out[#out + 1] = id .. ':' .. old
  end
  return table.concat(out, ' ')
end

-- The announcement of an end goes out before the record goes, so that every subscriber hears it before
-- the notification of Redis itself.
local function tell_end(m, channel, node, cid, gen, sid, reason, grace)
  redis.call('PEXPIRE', m, grace)
  redis.call('PUBLISH', channel, cjson.encode({
    kind = 'destroy', cid = cid, gen = gen, sid = sid, reason = reason, node = node }))
  redis.call('SET', m, gen .. ':' .. sid .. '!', 'PX', grace)
end

local function tell_set(channel, node, cid, r, new, previous)
  redis.call('PUBLISH', channel, cjson.encode({
    kind = 'set', cid = cid, gen = r.gen, sid = r.sid, v = r.v, left = r.ttl, prev = previous,
    sealed = r.sealed == '1', new = new, init = new or previous ~= nil, node = node,
    notice = r.notice }))
end

-- One announcement for both, the end of the open (or sealed) session `was` and the sealed one that
-- takes its place: no listener hears of one without the other.
local function tell_sealed(channel, node, cid, r, was, sid)
  redis.call('PUBLISH', channel, cjson.encode({
    kind = 'seal', cid = cid, gen = r.gen, sid = r.sid, v = r.v, left = r.ttl, prev = sid,
    was = was, node = node }))
end

local function is_told(mapping)
  return string.byte(mapping, -1) == 33 -- "!"
end

-- The text at a key of ours. A value of another type is not ours, and goes.
local function text_at(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then
    redis.call('DEL', key)
    return false
  end
  return value
end

-- Tells the end of a session whose record is gone, unless it was told.
local function tell_untold(m, told, channel, node, cid, reason, grace)
  local mapping = text_at(m)
  if not mapping or is_told(mapping) then
    return nil
  end
  if told and redis.call('SISMEMBER', told, cid .. ':' .. mapping) == 1 then
    return nil
  end
  local gen, sid = string.match(mapping, '^(%d+):(.+)$')
  if sid then
    tell_end(m, channel, node, cid, gen, sid, reason, grace)
  end
  return sid
end

-- Why there is no record: its time is over, or somebody wrote something else over it, which goes.
local function absent(s)
  -- No `DEL` where nothing is: it would count as the script's first write.
  if redis.call('EXISTS', s) == 1 then
    redis.call('DEL', s)
    return 'external'
  end
  return 'expired'
end

-- The time to live that a write gives; "0" as cap means none.
local function life(idle, cap, age)
  idle, cap = tonumber(idle), tonumber(cap)
  if cap > 0 then
    return math.min(idle, cap - age)
  end
  return idle
end

-- Sets what a write at `t` gives: `r.point` says that the pointer has to be set.
local function live(r, t, ttl)
  r.ttl = ttl
  r.exp = string.format('%.0f', t + ttl)
  if not r.hinted or tonumber(r.hinted) - t < ttl * 1.5 then
    r.hinted = string.format('%.0f', t + 2 * ttl)
    r.point = 1
  end
end

local function store(s, r)
  redis.call('HSET', s, 'v', r.v, 'gen', r.gen, 'sid', r.sid, 'created', r.created, 'ttl', r.ttl,
    'exp', r.exp, 'mode', r.mode, 'sealed', r.sealed, 'prev', r.prev, 'data', r.data,
    'hinted', r.hinted)
end

-- What goes with a record that is stored.
local function keep_alive(s, m, r, grace)
  redis.call('PEXPIRE', s, r.ttl)
  redis.call('SET', m, r.gen .. ':' .. r.sid, 'PX', r.ttl + grace)
end

-- The list of who is to be looked at lives as long as its last entry.
local function keep(due, life)
  if redis.call('PTTL', due) < life then
    redis.call('PEXPIRE', due, life)
  end
end

-- Sets the pointer to a session, if it has to be.
local function lead(prefix, cid, r)
  if prefix ~= '' and r.point then
    redis.call('SET', prefix .. ':sid:' .. r.sid, cid, 'PX', 2 * r.ttl)
    r.point = nil
  end
end

-- Says when to look at a session, a moment after its end; `order` "LT": only if earlier than before.
local function look_at(prefix, cid, t, left, grace, order)
  if prefix == '' then
    return
  end
  local due = prefix .. ':{sweep}:due'
  if order then
    redis.call('ZADD', due, order, t + left + 1, cid)
  else
    redis.call('ZADD', due, t + left + 1, cid)
  end
  keep(due, left + 1 + grace)
end

-- Takes the turn to sweep, for so many milliseconds, or returns when to ask again: the first that
-- asks during a turn when it ends, each further one after twice as many turns as the one before.
-- So the end of a turn is noticed at once, and a hundred nodes ask hardly more often than three.
local function take_turn(by, asked, me, length)
  local owner = redis.call('GET', by)
  if not owner or owner == me then
    redis.call('SET', by, me, 'PX', length)
    return nil
  end
  local rank = redis.call('INCR', asked)
  if rank == 1 then
    redis.call('PEXPIRE', asked, length)
  end
  return redis.call('PTTL', by) + length * (2 ^ (math.min(rank, 7) - 1) - 1)
end

-- Grants the lease to the next in line, or frees it. A node that nobody listens for any more is
-- passed over, where Redis can tell (`alone`: not in a cluster, which counts only its own node).
local function hand_over(l, q, length, nodes, cid, alone)
  while true do
    local head = redis.pcall('LPOP', q)
    if type(head) == 'table' then
      redis.call('DEL', q)
      head = nil
    end
    if not head then
      redis.call('DEL', l)
      return
    end
    local token, node = string.match(head, '^(.-)|(.*)$')
    if token and (redis.call('PUBLISH', nodes .. node, token .. '|' .. cid) > 0 or alone ~= '1') then
      redis.call('SET', l, token, 'PX', length)
      return
    end
  end
end
