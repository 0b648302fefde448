-- Looks at a session that may have ended without its writers, and tells its end if nobody has.
-- KEYS: s, m, told. ARGV: channel, node, cid, grace, reason, known gen or "", known sid or "".
-- Returns {1, now, ms to live, gen, version, sid} (alive), {2, sid} (ended and told by this call),
-- {0} (gone, and told before), {3} (gone, and nothing is left that names it).
local s, m, told = KEYS[1], KEYS[2], KEYS[3]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- Also lets Redis drop a record whose time is over.
local r = read(s)
if r then
  local left = redis.call('PTTL', s)
  if left == -1 then
    -- Somebody took its time to live away: the end that it names counts.
    left = math.floor(tonumber(r.exp) - now())
    redis.call('PEXPIRE', s, math.max(left, 0))
    r = left > 0 and r
  end
  if r then
    return { 1, now(), left, r.gen, r.v, r.sid }
  end
end
local reason = ARGV[5]
if absent(s) == 'external' then
  reason = 'external'
end
local sid = tell_untold(m, told, channel, node, cid, reason, grace)
if sid then
  return { 2, sid }
end
if redis.call('EXISTS', m) == 1 then
  return { 0 }
end
-- The mapping is gone as well (evicted, flushed), but the caller may remember.
if ARGV[6] ~= '' then
  tell_end(m, channel, node, cid, ARGV[6], ARGV[7], reason, grace)
  return { 2, ARGV[7] }
end
return { 3 }
