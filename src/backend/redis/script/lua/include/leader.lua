-- Takes the right to sweep, for so many milliseconds, or returns when to ask again: the first that
-- asks during a term when it ends, each further one after twice as many terms as the one before.
-- So the end of a term is noticed at once, and a hundred nodes ask hardly more often than three.
local function acquire_leadership(leader, candidates, me, term)
  local owner = redis.call('GET', leader)
  if not owner or owner == me then
    redis.call('SET', leader, me, 'PX', term)
    return nil
  end
  local rank = redis.call('INCR', candidates)
  if rank == 1 then
    redis.call('PEXPIRE', candidates, term)
  end
  return redis.call('PTTL', leader) + term * (2 ^ (math.min(rank, 7) - 1) - 1)
end
