-- Writes a key for a moment: whether Redis takes what changes write.
-- KEYS: w. ARGV: none. Returns {1}.
redis.call('SET', KEYS[1], '1', 'PX', 1000)
return { 1 }
