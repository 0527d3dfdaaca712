-- Give ready executions to a worker. The score of a claimed job becomes its lease expiry, so that it leaves
-- the head of the queue, and comes back by itself if the worker dies.
-- The owner's key holds token|start: the token (worker:number) fences, the start is for people.
-- A job whose lease has lapsed is taken over, with an attempt recorded as lost; but not within one lease
-- after a silence in which nobody could renew (Redis was away): first the living report. What comes back to
-- its own worker is a renewal, and keeps its token: the worker may never hear of this call, and goes on by that.
-- What is void is ended here: its trigger was removed. What waited elsewhere needs a free place again.
-- What is sent at most once is not taken over, nor sent when it was open before Redis lost something: whether it
-- was sent is unknown, and it fails.
-- Nothing is claimed while the data or the clock is not as the caller saw it last.
-- When no live execution is ready any more, caught-up ones are: of each workspace in turn, into free places.
-- Safe to run twice: the same worker and number get the same executions again.
-- KEYS: the shard's root
-- ARGV: now, policy, worker, number, executions at most, lease ms, takeovers at most, what the
--       caller saw (see _witness.lua)
-- RETURNS: time of the call ms, when the next may be ready ms (the earliest score that remains in the queue, or
--          a rate lets a caught-up one in; -1: none), the verdict (see _witness.lua), an array of those of the
--          executions' workspaces that have a version of `outgoing`, each with it, then for each execution: id, arq job, definition, anchor of its interval ms, token
--#include _keys
--#include _pulse
--#include _witness
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end

use_policy(ARGV[2])
local worker, number, limit = ARGV[3], ARGV[4], tonumber(ARGV[5])
local lease, max_takeovers = tonumber(ARGV[6]), tonumber(ARGV[7])
local token = worker .. ':' .. number
local saved_key = prefix .. 'claim:' .. worker
local lease_end = whole(now + lease)

go_on_when_full()
local takeover_after = note_pulse(lease)

local seen = ARGV[8]
local verdict = check_witness(seen)
if verdict[1] ~= '' then
  return { now, -1, verdict, {} }
end

local versions = {} -- of `outgoing`, of the workspaces of what is given
local reply, taken = { now, -1, verdict, versions }, {}
local senders = {} -- workspaces of what is given

local function worker_of(owner)
  return string.match(owner, '^(.*):%d+|')
end

local function give(workspace, id, job, definition, state, own_token)
  senders[workspace] = true
  reply[#reply + 1] = id
  reply[#reply + 1] = job
  reply[#reply + 1] = definition
  reply[#reply + 1] = state and state[NOTES] and state[NOTES].anchor or 0
  reply[#reply + 1] = own_token
  taken[#taken + 1] = id
end

local LOST = 'the worker was lost; whether the request arrived is unknown'
local FORGOTTEN = 'Redis lost what it knew of some time; whether the request was sent in it is unknown'

-- Deal with the attempt that was lost with its worker. Returns the job as it is now; nil when that was the end.
local function take_over(id, job, owner, once)
  count_total('takeovers')
  if once then
    end_execution(id, job, 'failed', 'unknown_outcome', cut_attempt(job, owner, 'unknown_outcome', LOST))
    return nil
  end
  local attempts, lost = cut_attempt(job, owner, 'worker_lost', LOST), 0
  for _, attempt in ipairs(attempts) do
    lost = lost + (attempt[4] == 'worker_lost' and 1 or 0)
  end
  if lost >= max_takeovers then
    end_execution(id, job, 'failed', 'worker_lost', attempts)
    return nil
  end
  count_rate(job.a[1])
  local packed = pack_job(#attempts, job.a, attempts, job.et)
  redis.call('SET', job_key(id), packed)
  job.k.attempts = attempts
  return packed
end

-- Whether an execution is sent at most once, and its request.
local function once(job, state)
  return marked(job.a, '1') or state and state[RULES] and state[RULES].once
end

local function request_of(id, job)
  if marked(job.a, 'o') then
    return redis.call('HGET', of(job.a[1], 'requests'), id)
  end
  return redis.call('HGET', of(job.a[1], 'definitions'), job.a[2])
end

local function try_claim(id, packed, owner)
  local workspace, trigger, slot, manual = split_id(id)
  local job = try_unpack(packed)
  if not workspace or not job or type(job.a) ~= 'table' or type(job.k) ~= 'table' then
    drop_unreadable(id)
    return
  end
  local is_alive, state = alive(workspace, trigger, job.a)
  local forgotten = once(job, state) and outlived_loss(job.et)
  -- Its own worker may have sent and finished it in what was lost; if it still sends, it renews.
  local own = owner and worker_of(owner) == worker and not forgotten
  if owner and not own and now < takeover_after then
    redis.call('ZADD', queue_key, whole(takeover_after), tag .. id)
    return
  end
  if owner and not own then
    packed = take_over(id, job, owner, once(job, state))
    if not packed then
      return
    end
  end
  if forgotten then
    local attempts = job.k.attempts or {}
    attempts[#attempts + 1] = { now, 0, 0, 'unknown_outcome', FORGOTTEN, '', '' }
    end_execution(id, job, 'failed', 'unknown_outcome', attempts)
    return
  end
  local definition = is_alive and request_of(id, job)
  if not definition then
    end_execution(id, job, 'cancelled', 'trigger_removed', job.k.attempts or {})
    return
  end
  local admitted = of(workspace, 'admitted')
  if not redis.call('ZSCORE', admitted, id) then
    redis.call('ZREM', of(workspace, 'waiting'), id)
    if not has_place(workspace) then
      redis.call('ZREM', queue_key, tag .. id)
      place(workspace, id, job.a, manual and job.et or slot)
      return
    end
    redis.call('ZREM', of(workspace, 'late'), id)
    take_place(workspace, id)
  end
  if not own then
    owner = token .. '|' .. whole(now)
    redis.call('SET', owner_key(id), owner)
  end
  redis.call('ZADD', queue_key, lease_end, tag .. id)
  give(workspace, id, packed, definition, state, string.match(owner, '^(.*)|'))
end

local WORKSPACES_AT_ONCE = 32
local late_opens -- when a rate lets in the next caught-up execution, ms

-- Claim caught-up executions; a workspace that had its turn goes to the end. Those that are void count, too: a
-- call ends no more of them than it may claim.
local function claim_late()
  local left = limit - #taken
  for _, workspace in ipairs(redis.call('ZRANGE', late_key, 0, WORKSPACES_AT_ONCE - 1)) do
    if left == 0 then
      return
    end
    local late = of(workspace, 'late')
    for _, id in ipairs(redis.call('ZRANGE', late, 0, left - 1)) do
      if has_place(workspace) and redis.call('EXISTS', of(workspace, 'backlog')) == 0 then
        left = left - 1
        try_claim(id, redis.call('GET', job_key(id)), false)
      end
    end
    if redis.call('EXISTS', late) == 1 then
      redis.call('ZADD', late_key, whole(now), workspace)
      local own = policy_of(workspace)
      if not is_open(own) then
        late_opens = math.min(late_opens or math.huge, math.ceil(own.opens))
      end
    else
      redis.call('ZREM', late_key, workspace)
    end
  end
end

local saved = redis.call('GET', saved_key)
saved = saved and cmsgpack.unpack(saved)
if saved and saved[1] == number then
  for _, id in ipairs(saved[2]) do
    local owner, packed = redis.call('GET', owner_key(id)), redis.call('GET', job_key(id))
    if owner and packed and worker_of(owner) == worker then
      local workspace, trigger = split_id(id)
      local job = cmsgpack.unpack(packed)
      local is_alive, state = alive(workspace, trigger, job.a)
      local definition = is_alive and request_of(id, job)
      if definition then
        redis.call('ZADD', queue_key, 'XX', lease_end, tag .. id)
        give(workspace, id, packed, definition, state, string.match(owner, '^(.*)|'))
      end
    end
  end
elseif limit > 0 then
  local ids = redis.call('ZRANGEBYSCORE', queue_key, '-inf', whole(now), 'LIMIT', 0, limit)
  if #ids > 0 then
    local keys = {}
    for _, member in ipairs(ids) do
      keys[#keys + 1] = 'arq:job:' .. member
      keys[#keys + 1] = 'arq:in-progress:' .. member
    end
    local values = redis.call('MGET', unpack(keys))
    for index, member in ipairs(ids) do
      if string.sub(member, 1, #tag) == tag then
        try_claim(string.sub(member, #tag + 1), values[index * 2 - 1], values[index * 2])
      else
        redis.call('ZREM', queue_key, member)
        redis.call('HINCRBY', root, 'strays', 1)
      end
    end
  end
  if #ids < limit then
    claim_late()
  end
  redis.call('SET', saved_key, cmsgpack.pack({ number, taken }), 'PX', math.ceil(lease))
end

-- The versions of what the workspaces' requests go out with; most have none.
local function note_outgoing()
  local names = {}
  for workspace in pairs(senders) do
    names[#names + 1] = workspace
  end
  if #names == 0 or redis.call('EXISTS', outgoing_key) == 0 then
    return
  end
  for index, version in ipairs(redis.call('ZMSCORE', outgoing_key, unpack(names))) do
    if version then
      table.insert(versions, names[index])
      table.insert(versions, version)
    end
  end
end

settle_call()
note_outgoing()
local first = redis.call('ZRANGE', queue_key, 0, 0, 'WITHSCORES')
local next_ready = math.min(tonumber(first[2] or math.huge), late_opens or math.huge)
reply[2] = next_ready < math.huge and next_ready or -1
return reply
