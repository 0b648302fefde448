-- Tells of a change that somebody made without the bridge.
-- KEYS: s. ARGV: channel, node, cid, sid, is new ("1" or "0").
-- Returns {1} or {0} (no such session).
local r = read(KEYS[1])
if not r or r.sid ~= ARGV[4] then
  return { 0 }
end
r.notice = true
r.ttl = redis.call('PTTL', KEYS[1])
tell_set(ARGV[1], ARGV[2], ARGV[3], r, ARGV[5] == '1')
return { 1 }
