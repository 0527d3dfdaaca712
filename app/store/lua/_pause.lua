-- Pausing a trigger: an operator's hold beside its definition. Its next slot goes to the head of the held
-- ones. Needs _end.lua and _trigger.lua.

local SPANS = 20 -- that a trigger remembers

-- Returns whether it was not paused before.
local function pause_trigger(workspace, trigger, note)
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  if not state then
    return false
  end
  local before = pause_of(workspace, trigger, state)
  redis.call('HSET', of(workspace, 'pauses'), trigger,
    cmsgpack.pack({ before and before[1] or now, note, state[BORN] }))
  local slot = redis.call('ZSCORE', of(workspace, 'due'), trigger)
  if slot then
    table.insert(state, HELD, tonumber(slot))
    redis.call('HSET', of(workspace, 'states'), trigger, cmsgpack.pack(state))
    redis.call('ZREM', of(workspace, 'due'), trigger)
    index_workspace(workspace)
  end
  redis.call('ZREM', refills_key, workspace .. ':' .. trigger)
  -- A replace that was prepared beside the trigger as it was has to prepare anew.
  redis.call('HSET', of(workspace, 'meta'), 'serial', redis.call('HINCRBY', root, 'serial', 1))
  return before == nil
end

-- Slots up to the pause are still due, those in it are not. Returns whether it was paused.
local function resume_trigger(workspace, trigger)
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  local pause = pause_of(workspace, trigger, state)
  redis.call('HDEL', of(workspace, 'pauses'), trigger)
  if not pause then
    return false
  end
  local since, slot = pause[1], state[HELD]
  note_run(workspace, trigger, since, now, 0, 'paused', pause[2], false)
  if redis.call('SISMEMBER', of(workspace, 'finished'), trigger) == 0
    and redis.call('HEXISTS', of(workspace, 'disabled'), trigger) == 0 then
    if slot and slot > since then
      for index = #state, HELD, -1 do
        state[index] = nil
      end
      state[AFTER], slot = math.max(state[AFTER], now), nil
    else
      local notes = state[NOTES] or {}
      notes.spans = notes.spans or {}
      table.insert(notes.spans, { since, now })
      if #notes.spans > SPANS then
        table.remove(notes.spans, 1)
      end
      state[NOTES] = notes
    end
    if slot then
      table.remove(state, HELD)
      redis.call('ZADD', of(workspace, 'due'), whole(slot), trigger)
      index_workspace(workspace)
    else
      redis.call('ZADD', refills_key, whole(now), workspace .. ':' .. trigger)
    end
  end
  redis.call('HSET', of(workspace, 'states'), trigger, cmsgpack.pack(state))
  redis.call('HSET', of(workspace, 'meta'), 'serial', redis.call('HINCRBY', root, 'serial', 1))
  redis.call('PUBLISH', wake_channel, 'replaced')
  return true
end
