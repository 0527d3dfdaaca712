-- Note a worker's heartbeat, or that it stops; forget those that have been silent for long. A few workers have a
-- seat: they are on duty (see workers/duty.py). One that wants none, because it has no place left, gives its up; but
-- while nobody has one it is on duty all the same, for slots come whether there are places or not.
-- Safe to run twice: the second run writes the same again.
-- KEYS: the shard's root
-- ARGV: now, worker, what it tells ('': it stops), ms after which a silent one is forgotten, workers at most,
--       seats (0: it wants none), ms for which one is held
-- RETURNS: whether it is on duty (1 or 0), how many workers are known
--#include _keys

local worker, facts = ARGV[2], ARGV[3]
local silence, most = tonumber(ARGV[4]), tonumber(ARGV[5])
local seats, held_ms = tonumber(ARGV[6]), tonumber(ARGV[7])

local AT_ONCE = 100

local function forget(workers)
  if #workers > 0 then
    redis.call('ZREM', workers_key, unpack(workers))
    redis.call('HDEL', worker_facts_key, unpack(workers))
    redis.call('ZREM', seats_key, unpack(workers))
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

-- A seat goes to who has one, or to who comes while one is free. Ends that lie too far ahead are of a clock that
-- has gone back. Returns whether the worker is on duty.
local function take_seat()
  redis.call('ZREMRANGEBYSCORE', seats_key, '-inf', whole(now))
  redis.call('ZREMRANGEBYSCORE', seats_key, '(' .. whole(now + held_ms), '+inf')
  if facts == '' or seats == 0 then
    redis.call('ZREM', seats_key, worker)
    return redis.call('EXISTS', seats_key) == 0 and 1 or 0
  end
  if not redis.call('ZSCORE', seats_key, worker) and redis.call('ZCARD', seats_key) >= seats then
    return 0
  end
  redis.call('ZADD', seats_key, whole(now + held_ms), worker)
  return 1
end

return { take_seat(), redis.call('ZCARD', workers_key) }
