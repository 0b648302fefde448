-- Looks at a session that may have ended without its writers, and tells its end if nobody has.
-- KEYS: s, m, e. ARGV: channel, node, cid, grace, reason, known gen or "", known sid or "".
-- Returns {1, now, ms to live, gen, version, sid} (alive), {2, sid} (ended and told by this call),
-- {0} (gone, and told before or never known).
local s, m, e = KEYS[1], KEYS[2], KEYS[3]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
-- Also lets Redis drop a record whose time is over.
local r = read(s)
if r then
  return { 1, now(), redis.call('PTTL', s), r.gen, r.v, r.sid }
end
local reason = ARGV[5]
if absent(s) == 'external' then
  reason = 'external'
end
local sid = tell_untold(m, e, channel, node, cid, reason, grace)
if sid then
  return { 2, sid }
end
-- The mapping is gone as well (evicted, flushed), but the caller remembers.
if ARGV[6] ~= '' and redis.call('GET', e) ~= ARGV[6] then
  tell_end(e, channel, node, cid, ARGV[6], ARGV[7], reason, grace)
  return { 2, ARGV[7] }
end
return { 0 }
