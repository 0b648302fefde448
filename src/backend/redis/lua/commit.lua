-- Writes a session that is still what the writer read, and may give its lease back with it.
-- KEYS: s, m, l, q, told. ARGV: channel, node, cid, grace, gen, version or "", token or "", data, mode,
-- idle, cap, new sid or "", release ("1" or "0"), lease ms, prefix of the nodes' channels, alone.
-- Returns {1, record.., old sid or ""} (done), {2, record..} (conflict), {3} (ended),
-- {4} (lease lost).
local s, m, l, q, told = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local r = read(s)
if not r then
  tell_untold(m, told, channel, node, cid, absent(s), grace)
  return { 3 }
end
if r.gen ~= ARGV[5] then
  return { 3 }
end
if ARGV[7] ~= '' and redis.call('GET', l) ~= ARGV[7] then
  return { 4 }
end
if ARGV[6] ~= '' and r.v ~= ARGV[6] then
  return reply(2, r)
end
local t = now()
local ttl = life(ARGV[10], ARGV[11], t - tonumber(r.created))
if ttl <= 0 then
  tell_end(m, channel, node, cid, r.gen, r.sid, 'expired', grace)
  redis.call('DEL', s)
  return { 3 }
end
local previous = nil
if ARGV[12] ~= '' then
  previous = r.sid
  r.hinted = false
  r.sid = ARGV[12]
end
r.v = string.format('%.0f', tonumber(r.v) + 1)
r.data = ARGV[8]
r.mode = ARGV[9]
live(r, t, ttl)
tell_set(channel, node, cid, r, false, previous)
write(s, m, r, grace)
if ARGV[13] == '1' then
  hand_over(l, q, ARGV[14], ARGV[15], cid, ARGV[16])
end
-- The writer knows its data.
r.data = ''
local answer = reply(1, r)
answer[#answer + 1] = previous or ''
return answer
