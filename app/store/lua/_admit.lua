-- Admission: at most `max_concurrency` executions of a workspace are in arq's queue, ready or running, and no
-- more than `max_rate` a second are let in.
-- Needs _keys.lua.

-- The deployment's policy, which every script that opens or ends executions takes as one msgpack array.
local policy = {}

local function use_policy(packed)
  local p = cmsgpack.unpack(packed)
  policy = {
    max_concurrency = p[1], keep_succeeded = p[2], keep_failed = p[3], keep_ms = p[4], keep_days = p[5],
    keep_slots = p[6], max_backlog = p[7], keep_runs = p[8], max_rate = p[9], keep_timings_days = p[10],
    max_kept_bytes = p[11],
  }
end

-- The policy of a workspace: the deployment's but for what it sets itself, with its pauses; read once a call.
-- Where it has a rate, `step` is the time from one execution to the next and `opens` when the next is let in,
-- both in ms.
local policies = {}

local function note_opens(workspace, opens)
  redis.call('HSET', of(workspace, 'meta'), 'opens', string.format('%.3f', opens))
end

local function policy_of(workspace)
  local own = policies[workspace]
  if not own then
    local set = redis.call('HMGET', of(workspace, 'meta'), 'max_concurrency', 'keep_succeeded', 'keep_failed',
      'keep_succeeded_seconds', 'paused', 'spans', 'max_rate', 'opens')
    local kept = tonumber(set[2] or policy.keep_succeeded)
    own = {
      max_concurrency = tonumber(set[1] or policy.max_concurrency),
      keep_ms = set[4] and tonumber(set[4]) * 1000 or policy.keep_ms,
      succeeded = kept, cancelled = kept, skipped = kept, missed = kept,
      failed = tonumber(set[3] or policy.keep_failed),
      paused = set[5], spans = set[6] and try_unpack(set[6]) or nil,
    }
    local rate = tonumber(set[7] or policy.max_rate)
    if rate > 0 then
      own.step = 1000 / rate
      own.opens = tonumber(set[8] or 0)
      if own.opens > now + own.step then -- the clock went back, or the rate is higher now
        own.opens = now + own.step
        note_opens(workspace, own.opens)
      end
    end
    policies[workspace] = own
  end
  return own
end

local WAITING_LEAST = 1000 -- so many may wait for a time, however few may wait for a place

-- Whether so many of a workspace's executions wait for a time (a retry, jitter, a place at a host) that no more are
-- opened: they hold no place, and nothing else bounds them.
local function is_crowded(workspace)
  return redis.call('ZCARD', of(workspace, 'waiting')) >= math.max(policy.max_backlog, WAITING_LEAST)
end

-- Whether a workspace's rate lets an execution in now.
local function is_open(own)
  return not own.step or own.opens <= now
end

local BEHIND = 100 -- ms: who looks this late makes up for it, so that the rate is reached

-- Count an attempt against its workspace's rate: the generic cell rate algorithm. In any t seconds there are at
-- most 1 + rate * (t + BEHIND).
local function count_rate(workspace)
  local own = policy_of(workspace)
  if own.step then
    own.opens = (now - own.opens > BEHIND and now or own.opens) + own.step
    note_opens(workspace, own.opens)
  end
end

local noted = {} -- workspaces that wait for their rate, of those looked at in this call
local LOOKED_AT_AFTER = 60000 -- ms: at the latest; a later time is from before the clock went back

-- Have a workspace's backlog looked at when its rate lets the next in: nobody ends then.
local function note_rate(workspace)
  local own = policy_of(workspace)
  if own.step then
    noted[workspace] = true
    local at = whole(math.ceil(math.min(own.opens, now + LOOKED_AT_AFTER)))
    if redis.call('ZADD', paced_key, at, workspace) == 1 then
      redis.call('PUBLISH', wake_channel, 'paced')
    end
  end
end

local function has_place(workspace)
  local own = policy_of(workspace)
  local limit = own.max_concurrency
  return is_open(own) and (limit == 0 or redis.call('ZCARD', of(workspace, 'admitted')) < limit)
end

-- Give an execution a place of its workspace.
local function take_place(workspace, id)
  redis.call('ZADD', of(workspace, 'admitted'), whole(now), id)
  count_rate(workspace)
end

-- Take it back from one that was not sent after all.
local function return_place(workspace, id)
  local own = policy_of(workspace)
  if redis.call('ZREM', of(workspace, 'admitted'), id) == 1 and own.step then
    own.opens = own.opens - own.step
    note_opens(workspace, own.opens)
  end
end

-- Put an open execution into arq's queue.
local function admit(workspace, id, ready)
  take_place(workspace, id)
  redis.call('ZADD', queue_key, ready, tag .. id)
end

local ADMIT_AT_ONCE = 200

-- Fill free places of a workspace from its backlog, oldest slot first; whoever fires or finishes goes on, or the
-- ticker when its rate lets the next in. Returns how many were let in.
local function admit_next(workspace)
  local own = policy_of(workspace)
  local limit = own.max_concurrency
  local count, backlog = redis.call('ZCARD', of(workspace, 'admitted')), of(workspace, 'backlog')
  for let_in = 0, ADMIT_AT_ONCE - 1 do
    if limit > 0 and count >= limit then
      return let_in
    elseif not is_open(own) then
      if redis.call('EXISTS', backlog) == 1 then
        note_rate(workspace)
      end
      return let_in
    end
    local first = redis.call('ZPOPMIN', backlog)
    if not first[1] then
      return let_in
    end
    admit(workspace, first[1], first[2])
    count = count + 1
  end
  note_rate(workspace)
  return ADMIT_AT_ONCE
end
