-- Ends a session and tells why.
-- KEYS: s, m, l, q, told. ARGV: channel, node, cid, grace, reason, sid or "", gen or "", token or "",
-- lease ms, prefix of the nodes' channels, alone, prefix.
-- Returns {1, sid} (ended; a token's lease is given back), {0} or {4} (lease lost).
local s, m, l, q, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local r = read(s)
if not r then
  tell_untold(m, told, channel, node, cid, absent(s), grace)
  return { 0 }
end
if (ARGV[6] ~= '' and not opens(r, ARGV[6])) or (ARGV[7] ~= '' and r.gen ~= ARGV[7]) then
  return { 0 }
end
if ARGV[8] ~= '' and text_at(l) ~= ARGV[8] then
  return { 4 }
end
tell_end(m, channel, node, cid, r.gen, r.sid, ARGV[5], grace)
redis.call('DEL', s)
if ARGV[12] ~= '' then
  redis.call('UNLINK', ARGV[12] .. ':sid:' .. r.sid)
  redis.call('ZREM', ARGV[12] .. ':{sweep}:due', cid)
end
if ARGV[8] ~= '' then
  hand_over(l, q, ARGV[9], ARGV[10], cid, ARGV[11])
end
return { 1, r.sid }
