-- Announcements; `pubsub/message.rs` has the same layout and describes it. `who` is the client and
-- the node that acts, as the node passes them.

local function publish(who, kind, flag, body)
  redis.call('PUBLISH', P .. CHANNEL, kind .. string.char(flag) .. who .. body)
end

-- `flag`: 1 new, 2 first use of a mapping, 4 a notice, 8 `previous` follows.
local function publish_set(who, flag, t, header, previous)
  publish(who, 'S', flag, struct.pack('>I6', t) .. header .. (previous or ''))
end

local function publish_end(who, reason, gen, sid)
  publish(who, 'D', reason, gen .. sid)
end
