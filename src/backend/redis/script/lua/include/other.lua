-- The reply to a writer whose session is not what it read.
local function what_there_is(s)
  local stored = redis.pcall('GET', s)
  if stored then
    return { 2, now(), type(stored) == 'string' and stored or '' }
  end
  return { 3 }
end
