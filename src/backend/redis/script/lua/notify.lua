-- Announces a change that was made without the bridge.
-- KEYS: s. ARGV: who, sid, is new ("1" or "0").
-- Returns {1} or {0} (no such session).
local r = head(KEYS[1])
if not r or r.sid ~= ARGV[2] then
  return { 0 }
end
publish_set(ARGV[1], ARGV[3] == '1' and 7 or 4, now(), pack(r))
return { 1 }
