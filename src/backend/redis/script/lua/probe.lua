-- Probes a session that may have ended without its writers, and announces its end if that was not
-- done.
-- KEYS: s. ARGV: who, reason, known gen or "", known sid or "".
-- Returns {1, now, ms to live, header} (alive), {2, sid} (ended and announced by this call), {0}
-- (gone, and announced before), {3} (gone, and nothing is left that names it).
local s, who, reason = KEYS[1], ARGV[1], tonumber(ARGV[2])
-- Also lets Redis drop a record whose time is over.
local r = head(s)
if r then
  local left = redis.call('PTTL', s)
  if left == -1 then
    -- Its time to live was taken away: the end that it names counts.
    left = r.exp - now()
    redis.call('PEXPIRE', s, math.max(left, 0))
  end
  if left > 0 or (left == 0 and redis.call('EXISTS', s) == 1) then
    return { 1, now(), left, pack(r) }
  end
end
local why, overwritten = delete_foreign_and_classify(s, string.sub(who, 1, 24))
if overwritten or reason == EXPIRED then
  reason = why
end
local sid = publish_destroy_once(s, who, reason)
if sid then
  return { 2, sid }
end
if redis.call('EXISTS', mapping_of(s)) == 1 then
  return { 0 }
end
-- The mapping is gone as well (evicted, flushed), but the caller may remember.
if ARGV[3] ~= '' then
  publish_destroy(s, who, reason, ARGV[3], ARGV[4])
  return { 2, ARGV[4] }
end
return { 3 }
