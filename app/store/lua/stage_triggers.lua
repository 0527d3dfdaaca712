-- Prepare a part of a new trigger set under keys of its own; nothing live changes.
-- An unchanged trigger takes its live state and next slot along. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, workspace, serial, triggers as one msgpack array of
--       {id, position, slots, enabled, rules, anchor ms, since ms, overdue} (see _trigger.lua);
--       then the definition of each
-- RETURNS: for each trigger: 'created', 'updated', 'unchanged' or 'moved' (unchanged, at another position);
--          for each its next slot ms, -1 for none; for each its old position (-1: none), its old definition
--          where it was updated (else ''), and the span that ends with the change, if one does: since when (else
--          -1), 'disabled' or 'changed'; how many are due or dry
--#include _keys
--#include _trigger

local workspace, serial = ARGV[2], tonumber(ARGV[3])
local batch = cmsgpack.unpack(ARGV[4])
local stage = 'stage:' .. ARGV[3] .. ':'
local FIRST_DEFINITION = 5

local function staged(part)
  return of(workspace, stage .. part)
end

local ids = {}
for index, entry in ipairs(batch) do
  ids[index] = entry[1]
end
local live_definitions = redis.call('HMGET', of(workspace, 'definitions'), unpack(ids))
local live_states = redis.call('HMGET', of(workspace, 'states'), unpack(ids))

local definitions, states, due, dry, finished, disabled = {}, {}, {}, {}, {}, {}
local bounded = {} -- updated triggers whose runs are bounded, by when they may run next
local changes, slots, old = {}, {}, {}
for index, entry in ipairs(batch) do
  local id, definition = entry[1], ARGV[FIRST_DEFINITION + index - 1]
  local live = try_unpack(live_states[index])
  local old_position = live and live[POSITION] or -1
  local state, change, stands, slot, passed = next_state(workspace, serial, entry, definition, live_definitions[index], live)
  definitions[#definitions + 1], definitions[#definitions + 2] = id, definition
  states[#states + 1], states[#states + 2] = id, cmsgpack.pack(state)
  if stands == 'due' then
    due[#due + 1], due[#due + 2] = whole(slot), id
  elseif stands == 'dry' then
    dry[#dry + 1] = id
  elseif stands == 'finished' then
    finished[#finished + 1] = id
  elseif stands == 'disabled' then
    disabled[#disabled + 1] = id
    disabled[#disabled + 1] = redis.call('HGET', of(workspace, 'disabled'), id) or whole(passed or now)
  end
  changes[index], slots[index] = change, slot or -1
  if change == 'updated' and state[RULES] and state[RULES].max_runs then
    bounded[#bounded + 1], bounded[#bounded + 2] = redis.call('ZSCORE', of(workspace, 'due'), id) or 0, id
  end
  old[#old + 1], old[#old + 2] = old_position, change == 'updated' and live_definitions[index] or ''
  local since, what = -1, ''
  if change == 'updated' and stands ~= 'disabled' then
    local disabled = redis.call('HGET', of(workspace, 'disabled'), id)
    since, what = tonumber(disabled or passed or -1), disabled and 'disabled' or 'changed'
  end
  old[#old + 1], old[#old + 2] = since, what
end

-- What is staged and never swapped in goes by itself.
local function store(command, part, values)
  if #values > 0 then
    redis.call(command, staged(part), unpack(values))
    redis.call('EXPIRE', staged(part), 600)
  end
end

store('HSET', 'definitions', definitions)
store('HSET', 'states', states)
store('ZADD', 'due', due)
store('SADD', 'dry', dry)
store('SADD', 'finished', finished)
store('HSET', 'disabled', disabled)
store('ZADD', 'bounded', bounded)
return { changes, slots, old, #due / 2 + #dry }
