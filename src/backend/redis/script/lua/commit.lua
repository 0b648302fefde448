-- Writes a session that is still what the writer read, and may give it a new id: the same session
-- renewed, or a sealed one in its place. For all that `write` and `write_leased` leave to it.
-- KEYS: s. ARGV: who, request, data, token or "".
-- The request: gen, version, mode, own max age, release (1 or 0), and for a new id: sid, 1 if it seals,
-- gen of the sealed session, the sid that may be renewed.
-- Returns {1, now, header, 1 if pointer and mapping were renewed, previous sid or ""} (done), {2, now,
-- record} (another version or generation), {3} (no record), {4} (lease lost), {6} (its cap is reached,
-- or it is over).
local s, who, request, data, token = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local gen, version, mode, own, release = struct.unpack('>c7I5BI5B', request)
local renews = #request > 19
local new_sid, seals, new_gen, from
if renews then
  new_sid, seals, new_gen, from = struct.unpack('>c43Bc7c43', request, 20)
  seals = seals == 1
end
local r = head(s)
if token ~= '' and redis.pcall('GET', string.sub(s, 1, -2) .. 'l') ~= token then
  return { 4 }
end
local t = now()
if not r or r.gen ~= gen or r.v ~= version then
  return what_there_is(s)
end
local other_age = mode ~= r.mode or own ~= r.own
r.mode, r.own = mode, own
r.sealed = r.sealed or seals == true
local ttl = ttl_for(r, t - r.created)
if ttl <= 0 or r.exp + OVERDUE < t then
  return { 6 }
end
local previous = ''
if renews and (seals or r.sid == from) then
  previous = r.sid
  -- The new id ends the time of the older ones too: sealed, none opens it any more.
  local opens_until = seals and 0 or t + OVERLAP
  local ids = { previous .. struct.pack('>I6', opens_until) }
  for at = 1, math.min(#r.previous, 7 * PREVIOUS), PREVIOUS do
    local sid, till = struct.unpack('>c43I6', r.previous, at)
    ids[#ids + 1] = sid .. struct.pack('>I6', math.min(till, opens_until))
  end
  r.previous = table.concat(ids)
  r.sid = new_sid
  if seals then
    r.gen = new_gen
  end
end
r.v = r.v + 1
local before = r.exp
local moves = set_expiry(r, t, ttl)
local hints = previous ~= '' or r.hinted - t < ttl * 1.5 or r.exp < before
if hints then
  r.hinted = t + 2 * ttl
end
local header = pack(r)
if moves then
  redis.call('SET', s, header .. r.previous .. data, 'PX', ttl)
else
  redis.call('SET', s, header .. r.previous .. data, 'KEEPTTL')
end
if seals then
  -- One message for both, the end of what was and the sealed session in its place: no listener
  -- hears of one without the other.
  publish(who, 'X', 0, gen .. previous .. struct.pack('>I6', t) .. header)
else
  publish_set(who, previous ~= '' and 10 or 0, t, header, previous)
end
local cid = string.sub(who, 1, 24)
if hints then
  set_hints(s, cid, r.gen, r.sid, ttl, r.exp)
end
if previous ~= '' and not CLUSTERED then
  redis.call('PEXPIRE', P .. ':sid:' .. previous, RETIRED)
end
if other_age or seals then
  -- It may end earlier than the schedule says.
  schedule(cid, r.exp, ttl, 'LT')
end
if release == 1 then
  grant_next(s, cid)
end
return { 1, t, header .. r.previous, hints and 1 or 0, previous }
