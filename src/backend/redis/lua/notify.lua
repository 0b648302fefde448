-- Tells of a change that somebody made without the bridge.
-- KEYS: s. ARGV: channel, node, cid, sid, is new ("1" or "0").
-- Returns {1} or {0} (no such session).
local r = read(KEYS[1])
if not r or r.sid ~= ARGV[4] then
  return { 0 }
end
redis.call('PUBLISH', ARGV[1], cjson.encode({
  kind = 'set', cid = ARGV[3], gen = r.gen, sid = r.sid, v = r.v,
  new = ARGV[5] == '1', init = false, node = ARGV[2] }))
return { 1 }
