-- Make executions that a person asked for: runs, backfills and retries of dead letters.
-- Safe to run twice: an execution that is there is not made again, and a call with an idempotency key gets
-- the reply of the first one.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, idempotency key ('' for none), what the call asks for (to tell another call
--       with the same key), reply to keep with the key, overlap ('allow' or 'after': one after another),
--       executions as one msgpack array of {id, trigger, slot ms, marks, dead letter that it retries ('')};
--       then for each the request that it has of its own ('' for its trigger's)
-- RETURNS: 'made', executions made; 'repeated', the reply kept; 'different' (another call had that key)
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _end
--#include _open

use_policy(ARGV[2])
local workspace, idempotency, asked, answer = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local overlap, entries = ARGV[7], cmsgpack.unpack(ARGV[8])
local FIRST_REQUEST = 9
local KEPT_MS = 86400000

if idempotency ~= '' then
  local key = of(workspace, 'idempotency:' .. idempotency)
  local kept = try_unpack(redis.call('GET', key))
  if kept then
    if kept[1] ~= asked then
      return { 'different', '' }
    end
    return { 'repeated', kept[2] }
  end
  redis.call('SET', key, cmsgpack.pack({ asked, answer }), 'PX', KEPT_MS)
end

local made = 0
for index, entry in ipairs(entries) do
  local id, trigger, slot, marks, letter = unpack(entry)
  local request = ARGV[FIRST_REQUEST + index - 1]
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  local is_new = redis.call('EXISTS', job_key(id), result_key(id)) == 0
  if letter ~= '' then
    is_new = is_new and redis.call('HSETNX', of(workspace, 'retried'), letter, id) == 1
  end
  if is_new then
    if request ~= '' then
      redis.call('HSET', of(workspace, 'requests'), id, request)
    end
    local args = { workspace, trigger, slot, state and state[BORN] or 0, marks ~= '' and marks or nil }
    local takes_part = state and state[RULES] and state[RULES].overlap
    if open_execution(id, args, overlap == 'allow' and takes_part and 'beside' or overlap, 0, now) then
      made = made + 1
    end
  end
end
flush_counts()
redis.call('PUBLISH', wake_channel, 'fired')
return { 'made', made }
