-- Ends a session and tells why.
-- KEYS: s, m. ARGV: channel, node, cid, reason, sid or "", gen or "".
-- Returns {1, sid} (ended) or {0}.
local s, m = KEYS[1], KEYS[2]
local r = read(s)
if not r then
  tell_untold(m, ARGV[1], ARGV[2], ARGV[3], 'expired')
  return { 0 }
end
if (ARGV[5] ~= '' and r.sid ~= ARGV[5]) or (ARGV[6] ~= '' and r.gen ~= ARGV[6]) then
  return { 0 }
end
redis.call('DEL', s, m)
tell_end(ARGV[1], ARGV[2], ARGV[3], r.gen, r.sid, ARGV[4])
return { 1, r.sid }
