-- Looks at a session that may have ended by itself, and tells its end if nobody has.
-- KEYS: s, m. ARGV: channel, node, cid, reason.
-- Returns {1, ms to live, now} (alive), {2, sid} (ended and told now), {0} (nothing to tell).
if redis.call('EXISTS', KEYS[1]) == 1 then
  return { 1, redis.call("PTTL", KEYS[1]), now() }
end
local sid = tell_untold(KEYS[2], ARGV[1], ARGV[2], ARGV[3], ARGV[4])
if sid then
  return { 2, sid }
end
return { 0 }
