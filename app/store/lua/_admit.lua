-- Admission: at most `max_concurrency` executions of a workspace are in arq's queue, ready or running.
-- Needs _keys.lua.

-- The deployment's policy, which every script that opens or ends executions takes as one msgpack array.
local policy = {}

local function use_policy(packed)
  local p = cmsgpack.unpack(packed)
  policy = {
    max_concurrency = p[1], keep_succeeded = p[2], keep_failed = p[3], keep_ms = p[4], keep_days = p[5],
    keep_slots = p[6], max_backlog = p[7], keep_runs = p[8],
  }
end

-- The policy of a workspace: the deployment's but for what it sets itself, with its pauses; read once a call.
local policies = {}

local function policy_of(workspace)
  local own = policies[workspace]
  if not own then
    local set = redis.call('HMGET', of(workspace, 'meta'), 'max_concurrency', 'keep_succeeded', 'keep_failed',
      'keep_succeeded_seconds', 'paused', 'spans')
    local kept = tonumber(set[2] or policy.keep_succeeded)
    own = {
      max_concurrency = tonumber(set[1] or policy.max_concurrency),
      keep_ms = set[4] and tonumber(set[4]) * 1000 or policy.keep_ms,
      succeeded = kept, cancelled = kept, skipped = kept, missed = kept,
      failed = tonumber(set[3] or policy.keep_failed),
      paused = set[5], spans = set[6] and try_unpack(set[6]) or nil,
    }
    policies[workspace] = own
  end
  return own
end

local function has_place(workspace)
  local limit = policy_of(workspace).max_concurrency
  return limit == 0 or redis.call('ZCARD', of(workspace, 'admitted')) < limit
end

-- Put an open execution into arq's queue.
local function admit(workspace, id, ready)
  redis.call('ZADD', of(workspace, 'admitted'), whole(now), id)
  redis.call('ZADD', queue_key, ready, tag .. id)
end

local ADMIT_AT_ONCE = 200

-- Fill free places of a workspace from its backlog, oldest slot first; whoever fires or finishes goes on.
local function admit_next(workspace)
  local limit = policy_of(workspace).max_concurrency
  local count = redis.call('ZCARD', of(workspace, 'admitted'))
  for _ = 1, ADMIT_AT_ONCE do
    if limit > 0 and count >= limit then
      return
    end
    local first = redis.call('ZPOPMIN', of(workspace, 'backlog'))
    if not first[1] then
      return
    end
    admit(workspace, first[1], first[2])
    count = count + 1
  end
end
