-- Pausing a trigger: an operator's hold beside its definition. Needs _end.lua and _trigger.lua.

-- Returns whether it was not paused before. What is due by now should have been fired: where it could not be,
-- the pause begins before it, so that the ledger says why it was not.
local function pause_trigger(workspace, trigger, note)
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  if not state then
    return false
  end
  local before = pause_of(workspace, trigger, state)
  local slot = redis.call('ZSCORE', of(workspace, 'due'), trigger)
  local since = now
  if before then
    since = before[1]
  elseif slot and tonumber(slot) <= now or redis.call('SISMEMBER', of(workspace, 'dry'), trigger) == 1 then
    since = math.min(now, state[AFTER])
  end
  redis.call('HSET', of(workspace, 'pauses'), trigger,
    cmsgpack.pack({ since, note, state[BORN] }))
  drop_held(state)
  redis.call('HSET', of(workspace, 'states'), trigger, cmsgpack.pack(state))
  redis.call('ZREM', of(workspace, 'due'), trigger)
  redis.call('SREM', of(workspace, 'dry'), trigger)
  redis.call('ZREM', refills_key, workspace .. ':' .. trigger)
  index_workspace(workspace)
  -- A replace that was prepared beside the trigger as it was has to prepare anew.
  redis.call('HSET', of(workspace, 'meta'), 'serial', redis.call('HINCRBY', root, 'serial', 1))
  return before == nil
end

-- The schedule goes on after now. Returns whether it was paused.
local function resume_trigger(workspace, trigger)
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  local pause = pause_of(workspace, trigger, state)
  redis.call('HDEL', of(workspace, 'pauses'), trigger)
  if not pause then
    return false
  end
  note_run(workspace, trigger, pause[1], now, 0, 'paused', pause[2], false)
  if redis.call('SISMEMBER', of(workspace, 'finished'), trigger) == 0
    and redis.call('HEXISTS', of(workspace, 'disabled'), trigger) == 0 then
    drop_held(state)
    state[AFTER] = math.max(state[AFTER], now)
    redis.call('HSET', of(workspace, 'states'), trigger, cmsgpack.pack(state))
    redis.call('SADD', of(workspace, 'dry'), trigger)
    redis.call('ZADD', refills_key, whole(now), workspace .. ':' .. trigger)
  end
  redis.call('HSET', of(workspace, 'meta'), 'serial', redis.call('HINCRBY', root, 'serial', 1))
  redis.call('PUBLISH', wake_channel, 'replaced')
  return true
end
