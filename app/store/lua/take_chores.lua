-- Take chores that are due, and move them a lease ahead, so that one worker does each, and another does it
-- when that one dies. Safe to run twice: the same taker and number get the same chores again.
-- KEYS: the shard's root, the chores (ZSET)
-- ARGV: now, chores at most, lease ms, taker, number
-- RETURNS: the chores, then their new times ms
--#include _keys

local chores_key, limit, lease = KEYS[2], tonumber(ARGV[2]), tonumber(ARGV[3])
local taker, number = ARGV[4], ARGV[5]
local taken_key = KEYS[2] .. ':' .. taker

go_on_when_full()
local taken = redis.call('GET', taken_key)
taken = taken and cmsgpack.unpack(taken)
if taken and taken[1] == number then
  return { taken[2], taken[3] }
end
local chores = redis.call('ZRANGEBYSCORE', chores_key, '-inf', whole(now), 'LIMIT', 0, limit)
local later = whole(now + lease)
for _, chore in ipairs(chores) do
  redis.call('ZADD', chores_key, later, chore)
end
if #chores > 0 then
  redis.call('SET', taken_key, cmsgpack.pack({ number, chores, later }), 'PX', lease)
end
return { chores, later }
