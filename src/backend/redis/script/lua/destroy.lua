-- Ends a session and announces why.
-- KEYS: s. ARGV: who, reason, sid or "", gen or "", token or "", by (a different text for each end).
-- Returns {1, sid} (ended; a token's lease is given back), {0}, {4} (lease lost) or {5, sid} (ended by
-- an earlier run with the same `by`).
local s, who, reason = KEYS[1], ARGV[1], tonumber(ARGV[2])
local wanted, gen, token = ARGV[3], ARGV[4], ARGV[5]
local r = head(s)
if not r then
  local mapping = redis.pcall('GET', mapping_of(s))
  if type(mapping) == 'string' and string.sub(mapping, 52) == ARGV[6] then
    return { 5, string.sub(mapping, 8, 50) }
  end
  local why = delete_foreign_and_classify(s, string.sub(who, 1, 24))
  publish_destroy_once(s, who, why)
  return { 0 }
end
if (wanted ~= '' and not opens(r, wanted)) or (gen ~= '' and r.gen ~= gen) then
  return { 0 }
end
if token ~= '' and text_at(string.sub(s, 1, -2) .. 'l') ~= token then
  return { 4 }
end
publish_destroy(s, who, reason, r.gen, r.sid, ARGV[6])
redis.call('DEL', s)
local cid = string.sub(who, 1, 24)
if not CLUSTERED then
  redis.call('UNLINK', P .. ':sid:' .. r.sid)
  redis.call('ZREM', P .. ':{sweep}:due', cid)
end
if token ~= '' then
  grant_next(s, cid)
end
return { 1, r.sid }
