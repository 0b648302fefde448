-- Writes a session that is still what the writer read.
-- KEYS: s, m, l. ARGV: channel, node, cid, grace, gen, version or "", token or "", data, mode,
-- idle, cap, new sid or "".
-- Returns {1, record.., old sid or ""} (done), {2, record..} (conflict), {3} (ended), {4} (lease lost).
local s, m, l = KEYS[1], KEYS[2], KEYS[3]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local r = read(s)
if not r then
  tell_untold(m, channel, node, cid, 'expired')
  return { 3 }
end
if r.gen ~= ARGV[5] then
  return { 3 }
end
if ARGV[7] ~= '' and redis.call('GET', l) ~= ARGV[7] then
  return { 4 }
end
if ARGV[6] ~= '' and r.v ~= ARGV[6] then
  return reply(2, s, r)
end
local ttl = life(ARGV[10], ARGV[11], now() - tonumber(r.created))
if ttl <= 0 then
  redis.call('DEL', s, m)
  tell_end(channel, node, cid, r.gen, r.sid, 'expired')
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
write(s, m, r, ttl, grace)
redis.call('PUBLISH', channel, cjson.encode({
  kind = 'set', cid = cid, gen = r.gen, sid = r.sid, v = r.v, prev = previous,
  new = false, init = previous ~= nil, node = node }))
local answer = reply(1, s, r)
answer[#answer + 1] = previous or ''
return answer
