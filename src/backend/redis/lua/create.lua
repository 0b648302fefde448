-- Creates a client's session, or joins one that is young enough, or replaces an older one.
-- KEYS: s, m. ARGV: channel, node, cid, grace, sid, gen, data, mode, idle, cap, join.
-- Returns {1, record.., old sid or ""} (created) or {2, record..} (exists).
local s, m = KEYS[1], KEYS[2]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local t = now()
local old = read(s)
local replaced = ''
if old then
  if t - tonumber(old.created) <= tonumber(ARGV[11]) then
    return reply(2, s, old)
  end
  redis.call('DEL', s, m)
  tell_end(channel, node, cid, old.gen, old.sid, 'replaced')
  replaced = old.sid
else
  tell_untold(m, channel, node, cid, 'expired')
end
local r = { v = 1, gen = ARGV[6], sid = ARGV[5], created = t, mode = ARGV[8], data = ARGV[7] }
write(s, m, r, life(ARGV[9], ARGV[10], 0), grace)
redis.call('PUBLISH', channel, cjson.encode({
  kind = 'set', cid = cid, gen = r.gen, sid = r.sid, v = r.v, new = true, init = true, node = node }))
local answer = reply(1, s, r)
answer[#answer + 1] = replaced
return answer
