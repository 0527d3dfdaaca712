-- Create, update or delete some triggers of a set, as one revision. Executions of removed ones are void from
-- here on; `clears` has them ended.
-- Safe to run twice: the reply is kept with the serial.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, serial, serial of the change that this was prepared after, ids to delete as
--       a msgpack array, triggers to put as a msgpack array of entries (see _trigger.lua; position -1: where
--       it is, or at the end), the revision's head and what undoes it, revisions kept, whether
--       what is due has to be fired first (1 or 0);
--       then the definition of each trigger to put
-- RETURNS: 'done', the revision, for each put: 'created', 'updated' or 'unchanged', and its next slot
--          ms (-1: none); or 'conflict' (prepare anew), 'due' (slots have to be fired first), 'erasing'
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _end
--#include _trigger
--#include _revise

use_policy(ARGV[2])
local workspace, serial, base = ARGV[3], ARGV[4], ARGV[5]
local deletes, puts = cmsgpack.unpack(ARGV[6]), cmsgpack.unpack(ARGV[7])
local head, undo, keep = ARGV[8], ARGV[9], tonumber(ARGV[10])
local fire_first = ARGV[11] == '1'
local FIRST_DEFINITION = 12

local meta = of(workspace, 'meta')
local known = redis.call('HMGET', meta, 'revision', 'serial', 'edited', 'positions', 'paused', 'erasing')
local revision = tonumber(known[1] or 0)
if known[6] then
  return { 'erasing', revision }
elseif known[2] == serial then
  local edited = cmsgpack.unpack(known[3])
  return { 'done', revision, edited[1], edited[2] }
elseif (known[2] or '0') ~= base then
  return { 'conflict', revision }
end

go_on_when_full()
-- The slots up to this moment are accounted for by the definitions of before.
if fire_first and not known[5] then
  for _, trigger in ipairs(deletes) do
    if unsettled(workspace, trigger) then
      return { 'due', revision }
    end
  end
  for _, entry in ipairs(puts) do
    if unsettled(workspace, entry[1]) then
      return { 'due', revision }
    end
  end
end

local function forget(trigger)
  redis.call('ZREM', of(workspace, 'due'), trigger)
  redis.call('SREM', of(workspace, 'finished'), trigger)
  redis.call('SREM', of(workspace, 'dry'), trigger)
  redis.call('HDEL', of(workspace, 'disabled'), trigger)
  redis.call('HDEL', of(workspace, 'errors'), trigger)
end

for _, trigger in ipairs(deletes) do
  redis.call('HDEL', of(workspace, 'definitions'), trigger)
  redis.call('HDEL', of(workspace, 'states'), trigger)
  forget(trigger)
  redis.call('ZREM', refills_key, workspace .. ':' .. trigger)
end

local positions = tonumber(known[4] or 0)
local changes, slots, altered = {}, {}, #deletes > 0
for index, entry in ipairs(puts) do
  local trigger, definition = entry[1], ARGV[FIRST_DEFINITION + index - 1]
  local live = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  if entry[2] < 0 then
    entry[2] = live and live[POSITION] or positions
  end
  local state, change, stands, slot, passed = next_state(workspace, tonumber(serial), entry, definition,
    redis.call('HGET', of(workspace, 'definitions'), trigger), live)
  if change ~= 'unchanged' then
    altered = true
    positions = math.max(positions, entry[2] + 1)
    redis.call('HSET', of(workspace, 'definitions'), trigger, definition)
    redis.call('HSET', of(workspace, 'states'), trigger, cmsgpack.pack(state))
    local disabled = redis.call('HGET', of(workspace, 'disabled'), trigger)
    if disabled and stands ~= 'disabled' then
      note_run(workspace, trigger, tonumber(disabled), now, 0, 'disabled', '', false)
    end
    if passed and stands ~= 'disabled' then
      note_run(workspace, trigger, passed, now, 0, 'changed', '', false)
    end
    forget(trigger)
    if stands == 'due' then
      redis.call('ZADD', of(workspace, 'due'), whole(slot), trigger)
    elseif stands == 'finished' then
      redis.call('SADD', of(workspace, 'finished'), trigger)
    elseif stands == 'disabled' then
      redis.call('HSET', of(workspace, 'disabled'), trigger, disabled or whole(passed or now))
    elseif stands == 'dry' then
      redis.call('SADD', of(workspace, 'dry'), trigger)
      redis.call('ZADD', refills_key, whole(now), workspace .. ':' .. trigger)
    end
  end
  changes[index], slots[index] = change, slot or -1
end

if altered then
  revision = revise(workspace, revision, head, undo, keep)
  redis.call('HSET', meta, 'serial', serial, 'positions', positions, 'edited', cmsgpack.pack({ changes, slots }))
  register(workspace)
  if #deletes > 0 then
    redis.call('ZADD', clears_key, whole(now), workspace)
  end
  index_workspace(workspace)
  redis.call('PUBLISH', wake_channel, 'replaced')
end
return { 'done', revision, changes, slots }
