-- Take chores that are due, and move them a lease ahead, so that one worker does each, and another does it
-- when that one dies. Safe to run twice: what a call took is kept for a while under its token.
-- KEYS: the shard's root, the chores (ZSET)
-- ARGV: now, chores at most, lease ms, token of the call
-- RETURNS: the chores, then their new times ms
--#include _keys

local chores_key, limit, lease, token = KEYS[2], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local taken_key = prefix .. 'taken:' .. token

local taken = redis.call('GET', taken_key)
if taken then
  return cmsgpack.unpack(taken)
end
local chores = redis.call('ZRANGEBYSCORE', chores_key, '-inf', whole(now), 'LIMIT', 0, limit)
local later = whole(now + lease)
for _, chore in ipairs(chores) do
  redis.call('ZADD', chores_key, later, chore)
end
if #chores > 0 then
  redis.call('SET', taken_key, cmsgpack.pack({ chores, later }), 'PX', lease)
end
return { chores, later }
