-- Store slots computed for triggers, if their definition and what they held are still the same; with what
-- became of slots that were found too late.
-- A trigger that is paused, disabled or finished takes none: it may have become so since they were computed.
-- Safe to run twice: the second run finds other slots held.
-- KEYS: the shard's root
-- ARGV: now, policy, refills as one msgpack array of {workspace, trigger, version, base ms, slots, error,
--       missed, caught ms, whether a key is missing (the error says so)}: the slots follow `base`, the last
--       slot known; with an error there are none; none and no error: the schedule has ended. `missed` is an
--       array of runs {first, last, reason, days, slots}: the days are {day, number} pairs, of which `slots`
--       get a record each. Slots up to `caught` are sent however late.
-- RETURNS: how many were stored
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end
--#include _trigger

use_policy(ARGV[2])
local refills = cmsgpack.unpack(ARGV[3])
local RETRY_MS = 300000 -- what can't be computed is tried again: a zone may come with an update
local KEY_RETRY_MS = 30000 -- and by others, who may have the key
local DAY_MS = 86400000

local function miss(workspace, trigger, born, run)
  local first, last, reason, days, slots = unpack(run)
  local number = 0
  for _, day in ipairs(days) do
    count(workspace, trigger, day[1] * DAY_MS, 'due', day[2])
    count(workspace, trigger, day[1] * DAY_MS, 'missed:' .. reason, day[2])
    number = number + day[2]
  end
  if #slots < number then
    note_run(workspace, trigger, first, last, number - #slots, 'missed', reason, false)
  end
  for _, slot in ipairs(slots) do
    local id = workspace .. ':' .. trigger .. ':' .. whole(slot)
    count(workspace, trigger, slot, 'missed:' .. reason, -1) -- its end counts it
    if redis.call('EXISTS', job_key(id), result_key(id)) > 0 then
      count(workspace, trigger, slot, 'due', -1) -- the clock went back: this slot has had its execution
    else
      end_execution(id, { a = { workspace, trigger, slot, born }, et = now }, 'missed', reason, {})
    end
  end
end

local function store(workspace, trigger, version, base, slots, problem, missed, caught, is_sealed)
  local chore = workspace .. ':' .. trigger
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  local stands = state and standing(workspace, trigger, state)
  if not state and problem ~= '' and redis.call('HEXISTS', of(workspace, 'definitions'), trigger) == 1 then
    -- It can't be read: nothing is computed until it is replaced.
    redis.call('HSET', of(workspace, 'errors'), trigger, problem)
  end
  if stands ~= 'due' and stands ~= 'dry' then -- resuming or enabling it asks for slots anew
    redis.call('ZREM', refills_key, chore)
    return 0
  end
  if problem ~= '' then
    redis.call('HSET', of(workspace, 'errors'), trigger, problem)
    redis.call('ZADD', refills_key, whole(now + (is_sealed and KEY_RETRY_MS or RETRY_MS)), chore)
    local known = state[NOTES] or {}
    if is_sealed and not known.sealed then
      known.sealed = math.floor(now)
      state[NOTES] = known
      redis.call('HSET', of(workspace, 'states'), trigger, cmsgpack.pack(state))
    end
    return 0
  end
  local next_slot = redis.call('ZSCORE', of(workspace, 'due'), trigger)
  local known = #state >= HELD and state[#state] or tonumber(next_slot or state[AFTER])
  if state[VERSION] ~= version or known ~= base then
    redis.call('ZADD', refills_key, whole(now), chore)
    return 0
  end
  for _, run in ipairs(missed) do
    miss(workspace, trigger, state[BORN], run)
    state[AFTER] = math.max(state[AFTER], run[2])
  end
  local notes = state[NOTES] or {}
  if caught > 0 then
    notes.caught = caught
  end
  notes.sealed = nil
  if slots[1] and slots[1] > now then
    notes.behind = nil
  end
  state[NOTES] = next(notes) and notes or false
  local first = 1
  if not next_slot then
    if slots[1] then
      redis.call('ZADD', of(workspace, 'due'), whole(slots[1]), trigger)
      index_workspace(workspace)
      first = 2
    else
      redis.call('SADD', of(workspace, 'finished'), trigger)
    end
    redis.call('SREM', of(workspace, 'dry'), trigger)
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
settle_call()
return stored
