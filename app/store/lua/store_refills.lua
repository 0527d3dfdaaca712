-- Store slots computed for triggers, if their definition and what they held are still the same.
-- Safe to run twice: the second run finds other slots held.
-- KEYS: the shard's root
-- ARGV: now, refills as one msgpack array of {workspace, trigger, version, base ms, slots, error}:
--       the slots follow `base`, the last slot known; with an error there are none
-- RETURNS: how many were stored
--#include _keys

local refills = cmsgpack.unpack(ARGV[2])
local RETRY_MS = 300000 -- what can't be computed is tried again: a zone may come with an update

local function store(workspace, trigger, version, base, slots, problem)
  local chore = workspace .. ':' .. trigger
  local state = redis.call('HGET', of(workspace, 'states'), trigger)
  state = state and cmsgpack.unpack(state)
  if not state then
    redis.call('ZREM', refills_key, chore)
    return 0
  end
  if problem ~= '' then
    redis.call('HSET', of(workspace, 'errors'), trigger, problem)
    redis.call('ZADD', refills_key, whole(now + RETRY_MS), chore)
    return 0
  end
  local next_slot = redis.call('ZSCORE', of(workspace, 'due'), trigger)
  local known = #state >= HELD and state[#state] or tonumber(next_slot or state[AFTER])
  if state[VERSION] ~= version or known ~= base then
    redis.call('ZADD', refills_key, whole(now), chore)
    return 0
  end
  local first = 1
  if not next_slot then
    redis.call('ZADD', of(workspace, 'due'), whole(slots[1]), trigger)
    index_workspace(workspace)
    first = 2
  end
  for index = first, #slots do
    state[#state + 1] = slots[index]
  end
  redis.call('HSET', of(workspace, 'states'), trigger, cmsgpack.pack(state))
  redis.call('HDEL', of(workspace, 'errors'), trigger)
  redis.call('ZREM', refills_key, chore)
  return 1
end

local stored = 0
for _, refill in ipairs(refills) do
  stored = stored + store(unpack(refill))
end
return stored
