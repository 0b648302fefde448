-- The mapping `m` names a client's session: generation, id, and when it ends at the earliest. It lives
-- longer than the record, so that an end can still be named, and that of a session which is gone before
-- its time is not taken for an expiry. The step that announces an end appends "!", and who ends it if that
-- is asked for later, so that each end is announced once; where a page of ends is announced in one step,
-- they are put into the set of
-- tombstones instead, from where `flush_tombstones` marks the mappings soon after.

local EXPIRED, EXTERNAL = 1, 5

local function mapping_of(s)
  return string.sub(s, 1, -2) .. 'm'
end

-- The text at a key of ours. A value of another type is not ours, and goes.
local function text_at(key)
  local value = redis.pcall('GET', key)
  if type(value) == 'table' then
    redis.call('DEL', key)
    return false
  end
  return value
end

-- Announces an end and marks it. The first write takes no memory: see the page in `mod.rs`.
local function publish_destroy(s, who, reason, gen, sid, by)
  local m = mapping_of(s)
  redis.call('PEXPIRE', m, GRACE)
  publish_end(who, reason, gen, sid)
  redis.call('SET', m, gen .. sid .. '!' .. (by or ''), 'PX', GRACE)
end

-- Announces the end of a session whose record is gone, unless that was done. Returns its id.
local function publish_destroy_once(s, who, reason)
  local mapping = text_at(mapping_of(s))
  if not mapping or #mapping ~= MAPPING then
    return nil
  end
  if not CLUSTERED and redis.call('SISMEMBER', P .. ':{sweep}:tombstones', string.sub(who, 1, 24) .. string.sub(mapping, 1, NAMED)) == 1 then
    return nil
  end
  local gen, sid = string.sub(mapping, 1, 7), string.sub(mapping, 8, NAMED)
  publish_destroy(s, who, reason, gen, sid)
  return sid
end

-- Why there is no record: its time is over, it was deleted before that, or something else was written
-- over it, which goes. The second result says that it was the last.
local function delete_foreign_and_classify(s, cid)
  -- No `DEL` where nothing is: it would count as the script's first write.
  if redis.call('EXISTS', s) == 1 then
    redis.call('DEL', s)
    return EXTERNAL, true
  end
  -- A session is due at its end or earlier, never later, and so says its mapping. The schedule knows
  -- it better, as each entry that comes up moves to the session's end; a cluster has it elsewhere.
  local due = not CLUSTERED and redis.call('ZSCORE', P .. ':{sweep}:due', cid)
  if not due then
    local mapping = text_at(mapping_of(s))
    due = mapping and #mapping == MAPPING and struct.unpack('>I6', mapping, NAMED + 1)
  end
  if due and tonumber(due) > now() + 1 then
    return EXTERNAL, false
  end
  return EXPIRED, false
end
