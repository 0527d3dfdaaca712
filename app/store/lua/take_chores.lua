-- Take chores that are due, and move them a lease ahead, so that one worker does each, and another does it
-- when that one dies. Safe to run twice: what the first run took is taken again after the lease.
-- KEYS: the shard's root, the chores (ZSET)
-- ARGV: now, chores at most, lease ms
-- RETURNS: the chores, then their new times ms
--#include _keys

local chores = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', whole(now), 'LIMIT', 0, tonumber(ARGV[2]))
local later = whole(now + tonumber(ARGV[3]))
for _, chore in ipairs(chores) do
  redis.call('ZADD', KEYS[2], later, chore)
end
return { chores, later }
