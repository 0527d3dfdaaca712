-- Turn due slots into executions and move their triggers on, in one step.
-- For each due trigger: count the slot as due; put its job into arq's queue, or into the workspace's backlog
-- when the workspace has no free place there; set the due index to the following slot, which the trigger
-- holds. A trigger that holds none leaves the index and waits in `refills`. A slot too late is missed.
-- Every due workspace gets an equal share of a call, so that a large one does not hold up the others.
-- Safe to run twice: a slot is handled when it is in the due index, and leaves it here.
-- KEYS: the shard's root
-- ARGV: now, policy, lease ms, slots per call, start deadline ms, look-ahead ms, max backlog
-- RETURNS: executions made, slots handled, time of the call ms, earliest slot that remains ms (-1: none),
--          triggers that ran dry
--#include _keys
--#include _pulse
--#include _admit
--#include _end

use_policy(ARGV[2])
note_pulse(tonumber(ARGV[3]))
local budget, deadline, look_ahead = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local max_backlog = tonumber(ARGV[7])

local made, handled, ran_dry = 0, 0, 0
local jobs, queued = {}, {}
local now_text = whole(now)

-- What one workspace's slots do to its keys is gathered here and written with few commands.
local function fire_workspace(workspace, share)
  local own_due = of(workspace, 'due')
  local picked = redis.call('ZRANGEBYSCORE', own_due, '-inf', now_text, 'WITHSCORES', 'LIMIT', 0, share)
  if #picked == 0 then
    return
  end
  local triggers = {}
  for index = 1, #picked, 2 do
    triggers[#triggers + 1] = picked[index]
  end
  local states = redis.call('HMGET', of(workspace, 'states'), unpack(triggers))
  local limit = max_concurrency(workspace)
  local admitted_count = redis.call('ZCARD', of(workspace, 'admitted'))
  local backlog_count = redis.call('ZCARD', of(workspace, 'backlog'))
  local new_states, new_due, dry, admitted, backlog = {}, {}, {}, {}, {}

  local function fire_slot(trigger, slot, born)
    local id = workspace .. ':' .. trigger .. ':' .. whole(slot)
    if redis.call('EXISTS', job_key(id), result_key(id)) > 0 then
      return -- the clock went back: this slot has had its execution
    end
    count(workspace, trigger, slot, 'due')
    local args = { workspace, trigger, slot, born }
    if now - slot > deadline then
      end_execution(id, { a = args, et = now }, 'missed', 'deadline', {})
    elseif backlog_count == 0 and (limit == 0 or admitted_count < limit) then
      admitted_count = admitted_count + 1
      admitted[#admitted + 1], admitted[#admitted + 2] = now_text, id
      queued[#queued + 1], queued[#queued + 2] = whole(slot), tag .. id
      jobs[#jobs + 1], jobs[#jobs + 2] = job_key(id), pack_job(0, args, {}, now)
      made = made + 1
    elseif backlog_count < max_backlog then
      backlog_count = backlog_count + 1
      backlog[#backlog + 1], backlog[#backlog + 2] = whole(slot), id
      jobs[#jobs + 1], jobs[#jobs + 2] = job_key(id), pack_job(0, args, {}, now)
      made = made + 1
    else
      end_execution(id, { a = args, et = now }, 'skipped', 'backlog_full', {})
    end
  end

  for index, trigger in ipairs(triggers) do
    local slot = tonumber(picked[index * 2])
    local state = try_unpack(states[index])
    if not state then
      -- In the index without a state that can be read: nothing to fire, and nobody else to hold up.
      dry[#dry + 1] = trigger
      redis.call('HSET', of(workspace, 'errors'), trigger, 'the stored state is unreadable; replace the trigger')
    else
      local next_held = HELD
      while slot and slot <= now and handled < budget do
        handled = handled + 1
        fire_slot(trigger, slot, state[BORN])
        state[AFTER] = slot
        slot = state[next_held]
        next_held = next_held + 1
      end
      local kept = { state[BORN], state[VERSION], state[POSITION], state[AFTER] }
      for held = next_held, #state do
        kept[#kept + 1] = state[held]
      end
      new_states[#new_states + 1], new_states[#new_states + 2] = trigger, cmsgpack.pack(kept)
      local last = kept[#kept]
      if not slot then
        dry[#dry + 1] = trigger
        ran_dry = ran_dry + 1
        redis.call('ZADD', refills_key, now_text, workspace .. ':' .. trigger)
      else
        new_due[#new_due + 1], new_due[#new_due + 2] = whole(slot), trigger
        if #kept < HELD or last - now < look_ahead / 2 then
          -- Soon enough, but not amid the burst that the slot may be part of.
          local at = slot - now > look_ahead and now + math.min(10000, look_ahead / 4) or now
          redis.call('ZADD', refills_key, 'NX', whole(at), workspace .. ':' .. trigger)
        end
      end
    end
  end

  if #new_states > 0 then
    redis.call('HSET', of(workspace, 'states'), unpack(new_states))
  end
  if #new_due > 0 then
    redis.call('ZADD', own_due, unpack(new_due))
  end
  if #dry > 0 then
    redis.call('ZREM', own_due, unpack(dry))
  end
  if #admitted > 0 then
    redis.call('ZADD', of(workspace, 'admitted'), unpack(admitted))
  end
  if #backlog > 0 then
    redis.call('ZADD', of(workspace, 'backlog'), unpack(backlog))
  end
  if backlog_count > 0 and (limit == 0 or admitted_count < limit) then
    admit_next(workspace) -- nothing is left waiting beside a free place, whatever left it so
  end
  index_workspace(workspace)
end

local workspaces = redis.call('ZRANGEBYSCORE', due_key, '-inf', now_text, 'LIMIT', 0, 64)
local share = math.max(1, math.floor(budget / math.max(1, #workspaces)))
for _, workspace in ipairs(workspaces) do
  if handled >= budget then
    break
  end
  fire_workspace(workspace, share)
end
if #jobs > 0 then
  redis.call('MSET', unpack(jobs))
end
if #queued > 0 then
  redis.call('ZADD', queue_key, unpack(queued))
  redis.call('PUBLISH', wake_channel, 'fired')
end
local first = redis.call('ZRANGE', due_key, 0, 0, 'WITHSCORES')
return { made, handled, now, tonumber(first[2] or -1), ran_dry }
