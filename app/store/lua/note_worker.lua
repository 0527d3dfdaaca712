-- Note a worker's heartbeat, or that it stops; forget those that have been silent for long.
-- Safe to run twice: the second run writes the same again.
-- KEYS: the shard's root
-- ARGV: now, worker, what it tells ('': it stops), ms after which a silent one is forgotten, workers at most
-- RETURNS: how many workers are known
--#include _keys

local worker, facts = ARGV[2], ARGV[3]
local silence, most = tonumber(ARGV[4]), tonumber(ARGV[5])

local AT_ONCE = 100

local function forget(workers)
  if #workers > 0 then
    redis.call('ZREM', workers_key, unpack(workers))
    redis.call('HDEL', worker_facts_key, unpack(workers))
  end
end

go_on_when_full()
if facts == '' then
  forget({ worker })
else
  redis.call('ZADD', workers_key, whole(now), worker)
  redis.call('HSET', worker_facts_key, worker, facts)
end
forget(redis.call('ZRANGEBYSCORE', workers_key, '-inf', whole(now - silence), 'LIMIT', 0, AT_ONCE))
local excess = redis.call('ZCARD', workers_key) - most
if excess > 0 then
  forget(redis.call('ZRANGE', workers_key, 0, math.min(excess, AT_ONCE) - 1))
end
return redis.call('ZCARD', workers_key)
