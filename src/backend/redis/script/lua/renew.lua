-- Extends a lease to its full length from now.
-- KEYS: l. ARGV: token, lease ms. Returns {1} or {0} (no longer the owner's).
if text_at(KEYS[1]) ~= ARGV[1] then
  return { 0 }
end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 1 }
