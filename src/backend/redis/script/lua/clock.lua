-- Returns the time of Redis.
-- KEYS: none. ARGV: none. Returns {1, now}.
return { 1, now() }
