-- Writes a session that is still what the writer read, and may give its lease back with it.
-- KEYS: s, m, l, q, told. ARGV: channel, node, cid, grace, gen, version or "", token or "", data, mode,
-- idle of an open session, idle of a sealed one, cap, new sid or "", new gen (it seals) or "", the
-- sid that may be renewed or "", overlap ms, release ("1" or "0"), lease ms, prefix of the nodes'
-- channels, alone, prefix, ms for which the pointer of the id before lives on.
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
if ARGV[7] ~= '' and text_at(l) ~= ARGV[7] then
  return { 4 }
end
if ARGV[6] ~= '' and r.v ~= ARGV[6] then
  return reply(2, r)
end
local t = now()
local seals = ARGV[14] ~= ''
local idle = (seals or r.sealed == '1') and ARGV[11] or ARGV[10]
local ttl = life(idle, ARGV[12], t - tonumber(r.created))
if ttl <= 0 then
  tell_end(m, channel, node, cid, r.gen, r.sid, 'expired', grace)
  redis.call('DEL', s)
  return { 3 }
end
local previous, was = nil, r.gen
if ARGV[13] ~= '' and (seals or r.sid == ARGV[15]) then
  previous = r.sid
  local till = '0'
  if seals then
    r.gen, r.sealed = ARGV[14], '1'
  else
    till = string.format('%.0f', t + tonumber(ARGV[16]))
  end
  r.prev = previous_with(r.prev, previous, till)
  r.hinted = false
  r.sid = ARGV[13]
end
r.v = string.format('%.0f', tonumber(r.v) + 1)
r.data = ARGV[8]
r.mode = ARGV[9]
live(r, t, ttl)
store(s, r)
if seals then
  tell_sealed(channel, node, cid, r, was, previous)
else
  tell_set(channel, node, cid, r, false, previous)
end
keep_alive(s, m, r, grace)
lead(ARGV[21], cid, r)
if previous and ARGV[21] ~= '' then
  redis.call('PEXPIRE', ARGV[21] .. ':sid:' .. previous, ARGV[22])
end
if r.mode ~= 'default' then
  -- It may end earlier than the list says.
  look_at(ARGV[21], cid, t, ttl, grace, 'LT')
end
if ARGV[17] == '1' then
  hand_over(l, q, ARGV[18], ARGV[19], cid, ARGV[20])
end
-- The writer knows its data.
r.data = ''
local answer = reply(1, r)
answer[#answer + 1] = previous or ''
return answer
