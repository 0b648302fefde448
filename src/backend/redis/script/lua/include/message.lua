-- Announcements; `pubsub/message.rs` has the same layout and describes it. `who` is the client and
-- the node that acts, as the node passes them.

-- Only nodes that have sockets of the client, or listen to all, receive it.
local function publish(who, kind, flag, body)
  redis.call('PUBLISH', P .. CLIENT .. string.sub(who, 1, 24), kind .. string.char(flag) .. who .. body)
end

-- `flag`: 1 new, 2 first use of a mapping, 4 a notice, 8 `previous` follows.
local function publish_set(who, flag, t, header, previous)
  publish(who, 'S', flag, struct.pack('>I6', t) .. header .. (previous or ''))
end

-- The node that sweeps hears of ends too: it need not probe what is announced.
local function publish_end(who, reason, gen, sid)
  local message = 'D' .. string.char(reason) .. who .. gen .. sid
  redis.call('PUBLISH', P .. CLIENT .. string.sub(who, 1, 24), message)
  redis.call('PUBLISH', P .. ENDS, message)
end
