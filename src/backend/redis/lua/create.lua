-- Creates a client's session, or joins one that is young enough, or replaces an older one.
-- KEYS: s, m, told. ARGV: channel, node, cid, grace, sid, gen, data, mode, idle, cap, join.
-- Returns {1, record.., old sid or ""} (created) or {2, record..} (exists).
local s, m, told = KEYS[1], KEYS[2], KEYS[3]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local t = now()
local old = read(s)
local replaced = ''
if old then
  if t - tonumber(old.created) <= tonumber(ARGV[11]) then
    return reply(2, old)
  end
  tell_end(m, channel, node, cid, old.gen, old.sid, 'replaced', grace)
  redis.call('DEL', s)
  replaced = old.sid
else
  tell_untold(m, told, channel, node, cid, absent(s), grace)
end
local r = { v = '1', gen = ARGV[6], sid = ARGV[5], created = string.format('%.0f', t),
  mode = ARGV[8], data = ARGV[7] }
live(r, t, life(ARGV[9], ARGV[10], 0))
tell_set(channel, node, cid, r, true)
write(s, m, r, grace)
local answer = reply(1, r)
answer[#answer + 1] = replaced
return answer
