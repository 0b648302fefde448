-- A client's lease `l`, the queue `q` of those who wait for it, and the set `x` of tokens that were given
-- back and whose acquire may come yet.

-- Whether a node that did not receive its grant is gone. One that lives has lost its subscriber, and
-- asks again once it has another one.
local function is_gone(node)
  local ends = redis.pcall('ZSCORE', P .. ':{nodes}:z', node)
  return type(ends) ~= 'string' or tonumber(ends) <= now()
end

-- Grants the lease to the next in the queue, or frees it. A node that is gone is passed over, where
-- Redis can tell: in a cluster it counts the subscribers of one server only.
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
    if token and (redis.call('PUBLISH', P .. ':n:' .. node, token .. '|' .. cid) > 0 or CLUSTERED or not is_gone(node)) then
      redis.call('SET', base .. 'l', token, 'PX', LEASE)
      return
    end
  end
end
