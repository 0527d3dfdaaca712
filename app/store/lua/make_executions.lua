-- Make executions that a person asked for: runs, backfills and retries of dead letters.
-- Safe to run twice: an execution that is there is not made again, and a call with an idempotency key gets
-- the reply of the first one.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, idempotency key ('' for none), digests of what the call asks for (to tell another
--       call with the same key) as one msgpack array: the one to store, then what may be stored of it, overlap ('allow' or 'after': one after another),
--       executions as one msgpack array of {id, trigger, slot ms, marks, dead letter that it retries ('')};
--       then for each the request that it has of its own ('' for its trigger's)
-- RETURNS: 'made' and the ids as one msgpack array, without those whose dead letter was retried before
--          or is gone;
--          'full' and {bytes that open executions carry as requests of their own, bytes that these would add};
--          'repeated' and what was made by the first call with that key; 'different' (another call had that
--          key); 'none' (there is no such workspace, or it is being erased)
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end
--#include _open

use_policy(ARGV[2])
local workspace, idempotency, digests = ARGV[3], ARGV[4], cmsgpack.unpack(ARGV[5])
local overlap, entries = ARGV[6], cmsgpack.unpack(ARGV[7])
local FIRST_REQUEST = 8
local KEPT_MS = 86400000
local idempotency_key = of(workspace, 'idempotency:' .. idempotency)
local created = redis.call('HGET', of(workspace, 'meta'), 'created')

-- Whether an execution is still to be made.
local function is_wanted(id, letter)
  return redis.call('EXISTS', job_key(id), result_key(id)) == 0
    and (letter == '' or redis.call('ZSCORE', of(workspace, 'failed'), letter)
      and redis.call('HEXISTS', of(workspace, 'retried'), letter) == 0)
end

local function is_same_call(digest)
  for _, known in ipairs(digests) do
    if digest == known then
      return true
    end
  end
  return false
end

if not redis.call('ZSCORE', prefix .. 'workspaces', workspace) then
  return { 'none', '' }
elseif idempotency ~= '' then
  local kept = try_unpack(redis.call('GET', idempotency_key))
  if kept and kept[3] ~= created then
    kept = nil -- of a workspace of that id that was erased
  end
  if kept and not is_same_call(kept[1]) then
    return { 'different', '' }
  elseif kept then
    return { 'repeated', kept[2] }
  end
end

local added = 0
for index, entry in ipairs(entries) do
  if is_wanted(entry[1], entry[5]) then
    added = added + #ARGV[FIRST_REQUEST + index - 1]
  end
end
local carried = added > 0 and request_bytes(workspace, OPEN) or 0
if added > 0 and carried + added > policy.max_kept_bytes then
  return { 'full', cmsgpack.pack({ carried, added }) }
end

for index, entry in ipairs(entries) do
  local id, trigger, slot, marks, letter = unpack(entry)
  local request = ARGV[FIRST_REQUEST + index - 1]
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  if is_wanted(id, letter) then
    if letter ~= '' then
      redis.call('HSET', of(workspace, 'retried'), letter, id)
    end
    if request ~= '' then
      keep_request(workspace, id, OPEN, request)
    end
    local args = { workspace, trigger, slot, state and state[BORN] or 0, marks, letter ~= '' and letter or nil }
    local takes_part = state and state[RULES] and state[RULES].overlap
    open_execution(id, args, overlap == 'allow' and takes_part and 'beside' or overlap, 0, now)
  end
end
settle_call()
local made = {}
for _, entry in ipairs(entries) do
  if redis.call('EXISTS', job_key(entry[1]), result_key(entry[1])) > 0 then
    made[#made + 1] = entry[1]
  end
end
local answer = cmsgpack.pack(made)
if idempotency ~= '' and #made > 0 then
  redis.call('SET', idempotency_key, cmsgpack.pack({ digests[1], answer, created }), 'PX', KEPT_MS)
end
redis.call('PUBLISH', wake_channel, 'fired')
return { 'made', answer }
