-- Prepare a part of a new trigger set under keys of its own; nothing live changes.
-- An unchanged trigger takes its live state and next slot along. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, workspace, serial, triggers as one msgpack array of
--       {id, position, slots}; the first slot goes to the due index, the rest are held;
--       then the definition of each
-- RETURNS: for each trigger: 'created', 'updated', 'unchanged' or 'moved' (unchanged, at another position);
--          then for each its next slot ms, -1 for none
--#include _keys

local workspace, serial = ARGV[2], tonumber(ARGV[3])
local batch = cmsgpack.unpack(ARGV[4])
local stage = 'stage:' .. ARGV[3] .. ':'

local function staged(part)
  return of(workspace, stage .. part)
end

local ids = {}
for index, entry in ipairs(batch) do
  ids[index] = entry[1]
end
local live_definitions = redis.call('HMGET', of(workspace, 'definitions'), unpack(ids))
local live_states = redis.call('HMGET', of(workspace, 'states'), unpack(ids))

local definitions, states, due, dry, changes, slots = {}, {}, {}, {}, {}, {}
for index, entry in ipairs(batch) do
  local id, position, given, definition = entry[1], entry[2], entry[3], ARGV[4 + index]
  local state = live_states[index] and cmsgpack.unpack(live_states[index])
  local first = given[1]
  if state and live_definitions[index] == definition then
    changes[index] = state[POSITION] == position and 'unchanged' or 'moved'
    state[POSITION] = position
    if first then -- it has slots to come: the live index knows which
      first = tonumber(redis.call('ZSCORE', of(workspace, 'due'), id) or nil)
      if not first then
        dry[#dry + 1] = id
      end
    end
  else
    changes[index] = state and 'updated' or 'created'
    state = { state and state[BORN] or serial, serial, position, now }
    for held = 2, #given do
      state[HELD + held - 2] = given[held]
    end
  end
  definitions[#definitions + 1], definitions[#definitions + 2] = id, definition
  states[#states + 1], states[#states + 2] = id, cmsgpack.pack(state)
  if first then
    due[#due + 1], due[#due + 2] = whole(first), id
  end
  slots[index] = first or -1
end

-- What is staged and never swapped in goes by itself.
local function keep_for_a_while(part)
  redis.call('EXPIRE', staged(part), 600)
end

redis.call('HSET', staged('definitions'), unpack(definitions))
redis.call('HSET', staged('states'), unpack(states))
keep_for_a_while('definitions')
keep_for_a_while('states')
if #due > 0 then
  redis.call('ZADD', staged('due'), unpack(due))
  keep_for_a_while('due')
end
if #dry > 0 then
  redis.call('SADD', staged('dry'), unpack(dry))
  keep_for_a_while('dry')
end
return { changes, slots }
