-- Where a trigger stands, and what becomes of its state when its definition is given anew. Needs _keys.lua.

-- A trigger's pause, {since ms, note, born}; nil without one, or for an earlier trigger of that id.
local function pause_of(workspace, trigger, state)
  local pause = try_unpack(redis.call('HGET', of(workspace, 'pauses'), trigger))
  return pause and state and pause[3] == state[BORN] and pause or nil
end

-- Where a trigger with slots to come stands: 'due', 'dry' (until it is refilled), 'paused', 'disabled',
-- 'finished'.
local function standing(workspace, trigger, state)
  if redis.call('HEXISTS', of(workspace, 'disabled'), trigger) == 1 then
    return 'disabled'
  elseif redis.call('SISMEMBER', of(workspace, 'finished'), trigger) == 1 then
    return 'finished'
  elseif pause_of(workspace, trigger, state) then
    return 'paused'
  elseif redis.call('ZSCORE', of(workspace, 'due'), trigger) then
    return 'due'
  end
  return 'dry'
end

-- Whether slots of a trigger up to now are still to be fired or judged.
local function unsettled(workspace, trigger)
  local slot = redis.call('ZSCORE', of(workspace, 'due'), trigger)
  if slot then
    return tonumber(slot) <= now
  end
  return redis.call('SISMEMBER', of(workspace, 'dry'), trigger) == 1
    and redis.call('HEXISTS', of(workspace, 'errors'), trigger) == 0
end

-- The next state of a trigger. `entry` is {id, position, slots, enabled, rules, anchor ms, since ms, overdue}: the
-- first slot is its next one, the rest are held; no slots: it has finished. They were computed at `since`: those that
-- were fired after that have had their executions. `overdue` is '' where what was due could be fired before;
-- else 'keep' (the schedule is the same: they are judged once firing goes on) or 'drop' (it is another one).
-- Returns the state, how it changed ('created', 'updated', 'moved', 'unchanged'), where it stands, its next slot (nil
-- unless it is due), and since when slots of the former schedule are dropped (nil: none are).
local function next_state(workspace, serial, entry, definition, live_definition, live)
  local id, position, slots, enabled, rules, anchor, since, overdue = unpack(entry)
  if live and live_definition == definition then
    local change = live[POSITION] == position and 'unchanged' or 'moved'
    live[POSITION] = position
    local stands = standing(workspace, id, live)
    local slot = stands == 'due' and tonumber(redis.call('ZSCORE', of(workspace, 'due'), id)) or nil
    return live, change, stands, slot
  end
  local notes = false
  local runs = live and live[NOTES] and live[NOTES].runs
  if anchor > 0 or runs then
    notes = { anchor = anchor > 0 and anchor or nil, runs = runs or nil }
  end
  local first = 1
  while live and slots[first] and slots[first] > since and slots[first] <= live[AFTER] do
    first = first + 1
  end
  local after = slots[first] and math.min(since, slots[first] - 1) or now -- a past one-off that is to be caught up
  local state = { live and live[BORN] or serial, serial, position, after, rules, notes }
  local change = live and 'updated' or 'created'
  local passed = live and overdue ~= '' and unsettled(workspace, id) and live[AFTER] or nil
  if not enabled then
    return state, change, 'disabled', nil, passed
  elseif passed and overdue == 'keep' then
    state[AFTER] = passed
    return state, change, 'dry', nil
  elseif #slots == 0 or rules and rules.max_runs and (runs or 0) >= rules.max_runs then
    return state, change, 'finished', nil, passed
  end
  if live and pause_of(workspace, id, live) then
    return state, change, 'paused', nil
  elseif first > #slots then
    state[AFTER] = live[AFTER]
    return state, change, 'dry', nil
  end
  for index = first + 1, #slots do
    state[#state + 1] = slots[index]
  end
  return state, change, 'due', slots[first], passed
end
