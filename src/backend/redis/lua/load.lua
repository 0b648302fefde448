-- Reads a client's session.
-- KEYS: s. ARGV: none. Returns {1, record..} or {0}.
local r = read(KEYS[1])
if not r then
  return { 0 }
end
return reply(1, KEYS[1], r)
