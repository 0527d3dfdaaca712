-- Record what became of attempts, and let the next executions in.
-- An outcome counts only with the token that the execution is held by now: a worker that lost its lease
-- can't overwrite what its successor does.
-- Safe to run twice: the first run removes the token.
-- KEYS: the shard's root
-- ARGV: now, policy, outcomes as one msgpack array of
--       {id, token, what, delay ms, attempt, gone}; what is a final state, 'retry' or 'release' (not sent);
--       the attempt as in models.Attempt (none with 'release'); gone: the trigger is to be paused;
--       then for each outcome the definition that was sent ('' where it need not be kept)
-- RETURNS: for each outcome the state that the execution is in now; 'stale' where the token was not valid
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end
--#include _trigger
--#include _pause

use_policy(ARGV[2])

local outcomes = cmsgpack.unpack(ARGV[3])
local FIRST_DEFINITION = 4

local function finish(definition, id, token, what, delay, attempt, gone)
  local owner = redis.call('GET', owner_key(id))
  if not owner or string.sub(owner, 1, #token + 1) ~= token .. '|' then
    local result = not owner and attempt and try_unpack(redis.call('GET', result_key(id)))
    local last = result and result.r.attempts[#result.r.attempts]
    if last and last[1] == attempt[1] and last[7] == attempt[7] then
      return result.r.state -- this very outcome, recorded before its reply was lost
    end
    return 'stale'
  end
  local packed = redis.call('GET', job_key(id))
  if not packed then
    redis.call('DEL', owner_key(id))
    return 'stale'
  end
  local workspace, trigger = split_id(id)
  if what == 'release' then
    redis.call('DEL', owner_key(id))
    redis.call('ZADD', queue_key, whole(now + delay), tag .. id)
    redis.call('PUBLISH', wake_channel, 'released')
    return 'queued'
  end
  local job = cmsgpack.unpack(packed)
  local attempts = job.k.attempts or {}
  local last = attempts[#attempts]
  -- Waiting for a key is one attempt, however often a worker looks.
  local goes_on = last and last[4] == 'key' and attempt[4] == 'key'
  attempts[goes_on and #attempts or #attempts + 1] = attempt
  if what ~= 'retry' then
    local reason = attempt[4] == 'unknown_outcome' and 'unknown_outcome' or ''
    end_execution(id, job, what, reason, attempts, definition ~= '' and definition)
    local is_alive = gone and alive(workspace, trigger, job.a)
    if is_alive then
      pause_trigger(workspace, trigger, 'the target answered 410 Gone')
    end
    return what
  end
  if not alive(workspace, trigger, job.a) then
    end_execution(id, job, 'cancelled', 'trigger_removed', attempts)
    return 'cancelled'
  end
  redis.call('DEL', owner_key(id))
  redis.call('ZREM', of(workspace, 'admitted'), id)
  redis.call('SET', job_key(id), pack_job(#attempts, job.a, attempts, job.et))
  redis.call('ZADD', of(workspace, 'waiting'), whole(job.et), id)
  redis.call('ZADD', queue_key, whole(now + delay), tag .. id)
  freed[workspace] = true
  return 'retrying'
end

local reply = {}
for index, outcome in ipairs(outcomes) do
  local definition = ARGV[FIRST_DEFINITION + index - 1]
  reply[index] = finish(definition, unpack(outcome))
end
settle_call()
return reply
