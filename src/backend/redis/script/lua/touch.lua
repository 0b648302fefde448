-- Renews a session's life without rewriting its data. Tells nothing.
-- KEYS: s, m. ARGV: channel, node, cid, grace, gen, idle of an open session, idle of a sealed one, cap,
-- prefix.
-- They are used unless the session has a max age of its own.
-- Returns {1, record..} or {3} (ended).
local s, m = KEYS[1], KEYS[2]
local grace = tonumber(ARGV[4])
local r = read(s)
if not r or r.gen ~= ARGV[5] then
  return { 3 }
end
local t = now()
local idle = string.match(r.mode, '^%d+$') or (r.sealed == '1' and ARGV[7] or ARGV[6])
local ttl = life(idle, ARGV[8], t - tonumber(r.created))
if ttl <= 0 then
  tell_end(m, ARGV[1], ARGV[2], ARGV[3], r.gen, r.sid, 'expired', grace)
  redis.call('DEL', s)
  return { 3 }
end
live(r, t, ttl)
redis.call('PEXPIRE', s, ttl)
redis.call('HSET', s, 'ttl', r.ttl, 'exp', r.exp, 'hinted', r.hinted)
redis.call('SET', m, r.gen .. ':' .. r.sid, 'PX', ttl + grace)
lead(ARGV[9], ARGV[3], r)
return reply(1, r)
