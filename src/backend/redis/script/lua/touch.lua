-- Renews a session's life without rewriting its data. Announces nothing.
-- KEYS: s. ARGV: who, gen.
-- Returns {1, now, record, 1 if pointer and mapping were renewed} or {3} (ended).
local s, who = KEYS[1], ARGV[1]
local raw = redis.pcall('GET', s)
local r = parse(raw)
if not r or r.gen ~= ARGV[2] then
  return { 3 }
end
local t = now()
local ttl = ttl_for(r, t - r.created)
if ttl <= 0 or r.exp + OVERDUE < t then
  publish_destroy(s, who, EXPIRED, r.gen, r.sid)
  redis.call('DEL', s)
  return { 3 }
end
local before = r.exp
if not set_expiry(r, t, ttl) then
  return { 1, t, raw, 0 }
end
local hints = r.hinted - t < ttl * 1.5 or r.exp < before
if hints then
  r.hinted = t + 2 * ttl
end
local header = pack(r)
-- Takes no more memory than there is, so that sessions in use live on while Redis is full.
redis.call('PEXPIRE', s, ttl)
redis.call('SETRANGE', s, 0, header)
if hints then
  set_hints(s, string.sub(who, 1, 24), r.gen, r.sid, ttl, r.exp)
end
return { 1, t, header .. string.sub(raw, HEADER + 1), hints and 1 or 0 }
