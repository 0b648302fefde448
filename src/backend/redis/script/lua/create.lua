-- Creates a client's session, unless it has one: joins one that is open and young enough.
-- KEYS: s, m, told. ARGV: channel, node, cid, grace, sid, gen, data, mode, idle, cap, join (0: none),
-- sealed ("1" or "0"), age, prefix.
-- Returns {1, record..} (created), {2, record..} (exists, to be joined), {3} (its cap is reached) or
-- {5} (the client has a session that may not be joined).
local s, m, told = KEYS[1], KEYS[2], KEYS[3]
local channel, node, cid, grace = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local join, sealed, age = tonumber(ARGV[11]), ARGV[12], tonumber(ARGV[13])
local t = now()
local old = read(s)
if old then
  local lived = t - tonumber(old.created)
  -- A clock that stepped back makes no session young.
  if join > 0 and sealed == '0' and old.sealed == '0' and lived >= 0 and lived <= join then
    return reply(2, old)
  end
  return { 5 }
end
local reason = absent(s)
local r = { v = '1', gen = ARGV[6], sid = ARGV[5], created = string.format('%.0f', t - age),
  mode = ARGV[8], sealed = sealed, prev = '', data = ARGV[7] }
local ttl = life(ARGV[9], ARGV[10], age)
if ttl <= 0 then
  return { 3 }
end
live(r, t, ttl)
store(s, r)
-- The end of the client's session before, if nobody told it.
tell_untold(m, told, channel, node, cid, reason, grace)
tell_set(channel, node, cid, r, true)
keep_alive(s, m, r, grace)
lead(ARGV[14], cid, r)
look_at(ARGV[14], cid, t, ttl, grace)
return reply(1, r)
