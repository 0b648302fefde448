-- Whether an id opens the session: its own, or an earlier one whose time is not over.
local function opens(r, sid)
  if r.sid == sid then
    return true
  end
  for at = 1, #r.previous, PREVIOUS do
    local id, till = struct.unpack('>c43I6', r.previous, at)
    if id == sid then
      return till > now()
    end
  end
  return false
end
