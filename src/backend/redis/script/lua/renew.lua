-- Extends a lease to its full length from now.
-- KEYS: s. ARGV: token. Returns {1} or {0} (no longer the owner's).
local l = string.sub(KEYS[1], 1, -2) .. 'l'
if text_at(l) ~= ARGV[1] then
  return { 0 }
end
redis.call('PEXPIRE', l, LEASE)
return { 1 }
