-- A client's lease `l`, and the queue `q` of those who wait for it.

-- Grants the lease to the next in the queue, or frees it. A node without a subscriber any more is
-- passed over, where Redis can tell: in a cluster it counts the subscribers of one server only.
local function grant_next(s, cid)
  local base = string.sub(s, 1, -2)
  while true do
    local entry = redis.pcall('LPOP', base .. 'q')
    if type(entry) == 'table' then
      redis.call('DEL', base .. 'q')
      entry = nil
    end
    if not entry then
      redis.call('DEL', base .. 'l')
      return
    end
    local token, node = string.match(entry, '^(.-)|(.*)$')
    if token and (redis.call('PUBLISH', P .. ':n:' .. node, token .. '|' .. cid) > 0 or CLUSTERED) then
      redis.call('SET', base .. 'l', token, 'PX', LEASE)
      return
    end
  end
end
