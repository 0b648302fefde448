-- Writes a session that is still what the writer read, and may give its lease back with it.
-- The path that all writes take: four commands, and no table for the record. What is rare is left to
-- the node and to other scripts.
-- KEYS: s. ARGV: who, request, data, token or "".
-- The request: gen, version, mode, own max age, release (1 or 0).
-- Returns {1, now, header, 1 if pointer and mapping were renewed} (done), {2, now, record} (another
-- version or generation), {3} (no record), {4} (lease lost), {6} (its cap is reached, or it is over).
local s, who, request, token = KEYS[1], ARGV[1], ARGV[2], ARGV[4]
local cid = string.sub(who, 1, 24)
local raw = redis.pcall('GETRANGE', s, 0, 476)
if token ~= '' and redis.pcall('GET', string.sub(s, 1, -2) .. 'l') ~= token then
  return { 4 }
end
local t = redis.call('TIME')
t = t[1] * 1000 + math.floor(t[2] / 1000)
-- Format, generation and version.
if type(raw) ~= 'string' or string.byte(raw) ~= 1 or string.sub(raw, 3, 14) ~= string.sub(request, 1, 12) then
  local stored = redis.pcall('GET', s)
  if stored then
    return { 2, t, type(stored) == 'string' and stored or '' }
  end
  return { 3 }
end
local flags = string.byte(raw, 2)
local v, created, ttl, exp, hinted, own = struct.unpack('>I5', raw, 10), struct.unpack('>I6I5I6I6I5', raw, 58)
local mode, new_own, release = struct.unpack('>BI5B', request, 13)
local idle = mode == 2 and new_own or (flags % 2 == 1 and IDLE_SEALED or IDLE_OPEN)
if CAP > 0 then
  idle = math.min(idle, CAP - (t - created))
end
if idle <= 0 or exp + OVERDUE < t then
  return { 6 }
end
-- An end that moves by less than a hundredth of the life stays where it is: that saves a command of
-- Redis and a notification.
local moved = t + idle - exp
local moves = idle ~= ttl or moved < 0 or moved > math.min(ttl / 100, 60000)
local hints = hinted - t < idle * 1.5
local other_age = mode ~= math.floor(flags / 2) % 8 or new_own ~= own
local header
if moves or hints or other_age then
  if moves then
    ttl, exp = idle, t + idle
  end
  if hints then
    hinted = t + 2 * idle
  end
  flags = flags - math.floor(flags / 2) % 8 * 2 + mode * 2
  header = string.char(1, flags) .. string.sub(raw, 3, 9) .. struct.pack('>I5', v + 1)
    .. string.sub(raw, 15, 63) .. struct.pack('>I5I6I6I5', ttl, exp, hinted, new_own)
else
  header = string.sub(raw, 1, 9) .. struct.pack('>I5', v + 1) .. string.sub(raw, 15, 85)
end
local record = flags < 16 and header or header .. string.sub(raw, 86, 85 + 49 * math.floor(flags / 16))
if moves then
  redis.call('SET', s, record .. ARGV[3], 'PX', idle)
else
  redis.call('SET', s, record .. ARGV[3], 'KEEPTTL')
end
redis.call('PUBLISH', P .. CLIENT .. cid, 'S\0' .. who .. struct.pack('>I6', t) .. header)
if hints or other_age or release == 1 then
  if hints then
    set_hints(s, cid, string.sub(raw, 3, 9), string.sub(raw, 15, 57), ttl)
  end
  if other_age then
    -- It may end earlier than the schedule says.
    schedule(cid, exp, ttl, 'LT')
  end
  if release == 1 then
    grant_next(s, cid)
  end
end
return { 1, t, record, hints and 1 or 0 }
