-- Put a prepared trigger set in the place of the live one, in one step that takes about the same time for
-- any size. Triggers that fired since they were staged get their live state and slot first, a bounded number
-- a call. Executions of removed triggers are void from here on; `clears` has them ended.
-- Safe to run twice: the reply is kept with the serial.
-- KEYS: the shard's root
-- ARGV: now, workspace, serial, serial of the change that the set was staged after, triggers staged,
--       triggers that took their place in the old set, whether anything changed (1 or 0),
--       triggers staged that are due or dry, the revision's head and what undoes it (see app/store/revisions.py),
--       revisions kept, whether what is due has to be fired first (1 or 0)
-- RETURNS: 'swapped', the revision, size of the old set; or 'again' (call again), 'due' (slots of the old set
--          have to be fired first), 'erasing' (the workspace is being erased), or 'conflict' (another change
--          came between, or what was staged is gone: stage anew)
--#include _keys
--#include _revise

local workspace, serial, base, size, kept, changed =
  ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7] == '1'
local with_slots, head, undo, keep = tonumber(ARGV[8]), ARGV[9], ARGV[10], tonumber(ARGV[11])
local fire_first = ARGV[12] == '1'
local FIX_AT_ONCE = 500

local meta = of(workspace, 'meta')
local known = redis.call('HMGET', meta, 'revision', 'serial', 'replaced', 'paused', 'erasing')
local revision = tonumber(known[1] or 0)
if known[5] then
  return { 'erasing', revision, 0 }
elseif known[2] == serial then
  return { 'swapped', revision, tonumber(known[3]) }
elseif (known[2] or '0') ~= base then
  return { 'conflict', revision, 0 }
end

go_on_when_full()
local parts = { 'definitions', 'states', 'due', 'dry', 'finished', 'disabled' }
local function staged(part)
  return of(workspace, 'stage:' .. serial .. ':' .. part)
end

-- What was staged may be gone: it expires, and a failover can lose it.
if redis.call('HLEN', staged('definitions')) ~= size or redis.call('HLEN', staged('states')) ~= size
  or redis.call('ZCARD', staged('due')) + redis.call('SCARD', staged('dry')) ~= with_slots then
  return { 'conflict', revision, 0 }
end

-- The slots of the old set up to this moment are accounted for by the old set.
if fire_first and not known[4] and has_unsettled(workspace) then
  return { 'due', revision, 0 }
end

-- Whether a staged slot has had its execution, by where the live trigger and the staged one go on after. A past
-- one-off, which follows right on that, may be earlier than what the trigger was before.
local function has_fired(live_after, after, slot)
  return live_after == slot or live_after > slot and after < slot - 1
end

-- Bring a staged trigger up to date with what happened to the live one since; `staged_slot` is false where it is
-- dry. Returns whether it had to.
local function follow_live(trigger, staged_slot)
  local slot = redis.call('ZSCORE', of(workspace, 'due'), trigger)
  if slot and slot == staged_slot then
    return false
  end
  local live = redis.call('HGET', of(workspace, 'states'), trigger)
  if not live then
    return false
  end
  live = cmsgpack.unpack(live)
  local own = cmsgpack.unpack(redis.call('HGET', staged('states'), trigger))
  local finished = false
  if live[VERSION] == own[VERSION] then
    live[POSITION] = own[POSITION]
    own = live
    finished = redis.call('SISMEMBER', of(workspace, 'finished'), trigger) == 1
  elseif staged_slot and has_fired(live[AFTER], own[AFTER], tonumber(staged_slot)) then
    own, slot = { own[BORN], own[VERSION], own[POSITION], live[AFTER], own[RULES], own[NOTES] }, false
  elseif not staged_slot and live[AFTER] > own[AFTER] then
    own[AFTER], slot = live[AFTER], false
  else
    return false
  end
  redis.call('HSET', staged('states'), trigger, cmsgpack.pack(own))
  if slot then
    redis.call('ZADD', staged('due'), slot, trigger)
    redis.call('SREM', staged('dry'), trigger)
  else
    redis.call('ZREM', staged('due'), trigger)
    redis.call(finished and 'SREM' or 'SADD', staged('dry'), trigger)
    if finished then
      redis.call('SADD', staged('finished'), trigger)
    end
  end
  return true
end

-- The runs that an updated trigger has made since are runs of the staged one.
local function follow_runs(trigger)
  local slot = tonumber(redis.call('ZSCORE', of(workspace, 'due'), trigger) or 0)
  if slot > now then
    redis.call('ZADD', staged('bounded'), whole(slot), trigger)
  else
    redis.call('ZREM', staged('bounded'), trigger)
  end
  local live = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  local runs = live and live[NOTES] and live[NOTES].runs
  if not runs then
    return
  end
  local own = cmsgpack.unpack(redis.call('HGET', staged('states'), trigger))
  local notes = own[NOTES] or {}
  notes.runs, own[NOTES] = runs, notes
  if runs >= own[RULES].max_runs and redis.call('HEXISTS', staged('disabled'), trigger) == 0 then
    redis.call('ZREM', staged('due'), trigger)
    redis.call('SREM', staged('dry'), trigger)
    redis.call('SADD', staged('finished'), trigger)
    drop_held(own)
  end
  redis.call('HSET', staged('states'), trigger, cmsgpack.pack(own))
end

-- Only what was due by now, or dry, can have moved since it was staged.
local old_size = redis.call('HLEN', of(workspace, 'definitions'))
if old_size > 0 and size > 0 then
  local fixed = 0
  local ran = redis.call('ZRANGEBYSCORE', staged('bounded'), '-inf', whole(now), 'LIMIT', 0, FIX_AT_ONCE)
  for _, trigger in ipairs(ran) do
    follow_runs(trigger)
    fixed = fixed + 1
    if fixed == FIX_AT_ONCE then
      return { 'again', revision, 0 }
    end
  end
  local fired = redis.call('ZRANGEBYSCORE', staged('due'), '-inf', whole(now), 'WITHSCORES')
  for index = 1, #fired, 2 do
    if follow_live(fired[index], fired[index + 1]) then
      fixed = fixed + 1
      if fixed == FIX_AT_ONCE then
        return { 'again', revision, 0 }
      end
    end
  end
  for _, trigger in ipairs(redis.call('SMEMBERS', staged('dry'))) do
    follow_live(trigger, false)
  end
end

for _, trigger in ipairs(redis.call('SMEMBERS', staged('dry'))) do
  redis.call('ZADD', refills_key, whole(now), workspace .. ':' .. trigger)
end
redis.call('UNLINK', of(workspace, 'errors'))
for _, part in ipairs(parts) do
  redis.call('UNLINK', of(workspace, part))
  if redis.call('EXISTS', staged(part)) == 1 then
    redis.call('RENAME', staged(part), of(workspace, part))
    redis.call('PERSIST', of(workspace, part))
  end
end
redis.call('UNLINK', staged('bounded'))
if changed or kept ~= old_size then
  revision = revise(workspace, revision, head, undo, keep)
end
redis.call('HSET', meta, 'serial', serial, 'replaced', old_size, 'positions', size)
register(workspace)
if kept < old_size then
  redis.call('ZADD', clears_key, whole(now), workspace)
end
index_workspace(workspace)
redis.call('PUBLISH', wake_channel, 'replaced')
return { 'swapped', revision, old_size }
