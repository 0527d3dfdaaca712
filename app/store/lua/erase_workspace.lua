-- Erase a workspace with everything of it, a bounded number of executions a call; until it is done the
-- workspace takes no triggers. What is being sent is cut off.
-- Safe to run twice: call it until it is done. One of that id that was created since is another one, and stays.
-- KEYS: the shard's root
-- ARGV: now, workspace, when it was created ms (0: not known; empty: only go on with what was begun), executions
--       at most, days that counters are kept
-- RETURNS: 1 done, 0 call again, -1 there is no such workspace (any more)
--#include _keys

go_on_when_full()
local workspace, created, limit, keep_days = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local meta = of(workspace, 'meta')
local is_begun = redis.call('HEXISTS', meta, 'erasing') == 1
local is_meant = redis.call('EXISTS', meta) == 1 and (redis.call('HGET', meta, 'created') or '0') == created
if not is_begun and not is_meant then
  redis.call('ZREM', erases_key, workspace)
  return -1
end

-- Everything but the executions; a worker that claims one of those meanwhile writes some of it again.
local function forget()
  for _, part in ipairs({ 'definitions', 'states', 'due', 'dry', 'finished', 'disabled', 'errors', 'pauses',
    'exceptions', 'last', 'recent', 'revisions', 'undo', 'audit', 'outgoing' }) do
    redis.call('UNLINK', of(workspace, part))
  end
  for _, index in ipairs({ outgoing_key, due_key, clears_key, trims_key, late_key, paced_key, prefix .. 'workspaces' }) do
    redis.call('ZREM', index, workspace)
  end
end

local ids_left = of(workspace, 'erasing')
if not is_begun then
  redis.call('HSET', meta, 'erasing', whole(now))
  if redis.call('EXISTS', of(workspace, 'definitions')) == 1 then
    redis.call('RENAME', of(workspace, 'definitions'), ids_left)
  end
  forget()
  redis.call('ZADD', erases_key, whole(now), workspace)
end

-- The triggers' chores.
if redis.call('EXISTS', ids_left) == 1 then
  local cursor = redis.call('HGET', meta, 'erased_to') or '0'
  local page = redis.call('HSCAN', ids_left, cursor, 'COUNT', limit)
  for index = 1, #page[2], 2 do
    redis.call('ZREM', refills_key, workspace .. ':' .. page[2][index])
  end
  if page[1] ~= '0' then
    redis.call('HSET', meta, 'erased_to', page[1])
    return 0
  end
  redis.call('UNLINK', ids_left)
end

local erased = 0
for _, set in ipairs({ 'admitted', 'backlog', 'waiting', 'late', 'lined', 'succeeded', 'failed', 'cancelled',
  'skipped', 'missed' }) do
  local ids = redis.call('ZRANGE', of(workspace, set), 0, limit - erased - 1)
  for _, id in ipairs(ids) do
    local _, trigger = split_id(id)
    if redis.call('DEL', owner_key(id)) == 1 then
      redis.call('PUBLISH', wake_channel, 'cancel ' .. id)
    end
    redis.call('UNLINK', job_key(id), result_key(id), of(workspace, 'active:' .. trigger),
      of(workspace, 'line:' .. trigger))
    redis.call('ZREM', queue_key, tag .. id)
    redis.call('ZREM', of(workspace, set), id)
  end
  erased = erased + #ids
  if erased >= limit then
    return 0
  end
end

local today = math.floor(now / 86400000)
for day = today - keep_days - 1, today + 1 do
  redis.call('UNLINK', of(workspace, 'day:' .. day), of(workspace, 'timings:' .. day))
end
forget()
redis.call('UNLINK', of(workspace, 'requests'), of(workspace, 'retried'), meta)
redis.call('ZREM', erases_key, workspace)
return 1
