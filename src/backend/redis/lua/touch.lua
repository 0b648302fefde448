-- Renews a session's life without rewriting its data. Tells nothing.
-- KEYS: s, m. ARGV: channel, node, cid, grace, gen, idle, cap.
-- `idle` is used unless the session has a max age of its own.
-- Returns {1, record..} or {3} (ended).
local s, m = KEYS[1], KEYS[2]
local r = read(s)
if not r or r.gen ~= ARGV[5] then
  return { 3 }
end
local idle = string.match(r.mode, '^%d+$') or ARGV[6]
local ttl = life(idle, ARGV[7], now() - tonumber(r.created))
if ttl <= 0 then
  redis.call('DEL', s, m)
  tell_end(ARGV[1], ARGV[2], ARGV[3], r.gen, r.sid, 'expired')
  return { 3 }
end
redis.call('HSET', s, 'ttl', ttl)
redis.call('PEXPIRE', s, ttl)
redis.call('PEXPIRE', m, ttl + tonumber(ARGV[4]))
r.ttl = ttl
point(s, r, ttl)
return reply(1, s, r)
