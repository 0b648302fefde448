-- Creates a client's session, unless it has one: joins one that is open and young enough.
-- KEYS: s. ARGV: who, request, data.
-- The request: gen, sid, mode, own max age, sealed, join ms (0: none), age ms.
-- Returns {1, now, record, 1} (created), {2, now, record} (exists, to be joined), {3} (its cap is
-- reached, or it has ended already), {5} (the client has a session that may not be joined) or {6, now,
-- record} (an earlier run with the same gen created it).
local s, who, request, data = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
local cid = string.sub(who, 1, 24)
local gen, sid, mode, own, sealed, join, age = struct.unpack('>c7c43BI5BI5I6', request)
local t = now()
local old = head(s)
if old then
  if old.gen == gen then
    return { 6, t, redis.call('GET', s) }
  end
  local lived = t - old.created
  -- A clock that stepped back makes no session young.
  if join > 0 and sealed == 0 and not old.sealed and lived >= 0 and lived <= join then
    return { 2, t, redis.call('GET', s) }
  end
  return { 5 }
end
local mapping = redis.pcall('GET', mapping_of(s))
if type(mapping) == 'string' and string.sub(mapping, 1, 7) == gen then
  return { 3 }
end
local reason = delete_foreign_and_classify(s, cid)
local r = { gen = gen, v = 1, sid = sid, created = t - age, mode = mode, own = own,
  sealed = sealed == 1, previous = '' }
r.ttl = ttl_for(r, age)
if r.ttl <= 0 then
  return { 3 }
end
r.exp = t + r.ttl
r.hinted = t + 2 * r.ttl
local header = pack(r)
redis.call('SET', s, header .. data, 'PX', r.ttl)
-- The end of the client's session before, if that was not announced.
publish_destroy_once(s, who, reason)
publish_set(who, 3, t, header)
set_hints(s, cid, r.gen, r.sid, r.ttl, r.exp)
schedule(cid, r.exp, r.ttl)
return { 1, t, header, 1 }
