-- Turn due slots into executions and move their triggers on, in one step.
-- For each due trigger: count the slot as due; put its job into arq's queue, or into the workspace's backlog
-- when the workspace has no free place there; set the due index to the following slot, which the trigger
-- holds. A trigger that holds none leaves the index and waits in `refills`. So does one whose slot is found
-- too late: what becomes of such slots is worked out there.
-- Every due workspace gets an equal share of a call, so that a large one does not hold up the others.
-- Where a workspace's rate lets the next of its backlog in, that is done here, too.
-- Safe to run twice: a slot is handled when it is in the due index, and leaves it here.
-- What was sent at most once, and may have been in a time that Redis lost, is recorded as missed.
-- Nothing is fired while the data or the clock is not as the caller saw it last.
-- KEYS: the shard's root
-- ARGV: now, policy, lease ms, slots per call, start deadline ms, look-ahead ms, the only workspace to look at
--       ('' for all), what the caller saw (see _witness.lua)
-- RETURNS: executions made, slots handled, time of the call ms, when there is more to do ms (the earliest slot
--          that remains, or a rate lets the next in; -1: nothing), the triggers (workspace:trigger) that ran
--          dry, the verdict (see _witness.lua)
--#include _keys
--#include _pulse
--#include _witness
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end
--#include _open

use_policy(ARGV[2])
local lease, budget, usual_deadline, look_ahead = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local only = ARGV[7]
if only == '' then
  note_pulse(lease)
end

local seen = ARGV[8]
local verdict = check_witness(seen)
if verdict[1] ~= '' then
  return { 0, 0, now, -1, {}, verdict }
end

local PACED_AT_ONCE, PACED_EACH = 100, 20 -- workspaces; ms: so often they are looked at
local SLOWER = 3 -- plain slots that take as long as what a slot with rules, or of a backlog, takes more
local WORKSPACES_AT_ONCE = 16 -- each has its cost; the next call takes the others

local made, handled, let_in, ran_dry = 0, 0, 0, {}
local jobs, queued = {}, {}
local now_text = whole(now)

-- What one workspace's slots do to its keys is gathered here and written with few commands.
local function fire_workspace(workspace, share)
  local own_due = of(workspace, 'due')
  local own_policy = policy_of(workspace)
  if own_policy.paused then
    return
  end
  local picked = redis.call('ZRANGEBYSCORE', own_due, '-inf', now_text, 'WITHSCORES', 'LIMIT', 0, share)
  if #picked == 0 then
    index_workspace(workspace) -- it may not stay at the head of the shard's index
    return
  end
  local triggers = {}
  for index = 1, #picked, 2 do
    triggers[#triggers + 1] = picked[index]
  end
  local states = redis.call('HMGET', of(workspace, 'states'), unpack(triggers))
  local limit, spans = own_policy.max_concurrency, own_policy.spans
  local admitted_count = redis.call('ZCARD', of(workspace, 'admitted'))
  local backlog_count, crowded = redis.call('ZCARD', of(workspace, 'backlog')), is_crowded(workspace)
  local new_states, new_due, dry, admitted, backlog = {}, {}, {}, {}, {}

  -- The usual case, with few commands: a slot in time whose trigger has no rules.
  local function fire_plain(trigger, slot, id, args)
    if crowded then
      end_execution(id, { a = args, et = now }, 'skipped', 'backlog_full', {})
      return false
    elseif backlog_count == 0 and (limit == 0 or admitted_count < limit) and is_open(own_policy) then
      count_rate(workspace)
      admitted_count = admitted_count + 1
      admitted[#admitted + 1], admitted[#admitted + 2] = now_text, id
      queued[#queued + 1], queued[#queued + 2] = whole(slot), tag .. id
      jobs[#jobs + 1], jobs[#jobs + 2] = job_key(id), pack_job(0, args, {}, now)
    elseif backlog_count < policy.max_backlog then
      backlog_count = backlog_count + 1
      backlog[#backlog + 1], backlog[#backlog + 2] = whole(slot), id
      jobs[#jobs + 1], jobs[#jobs + 2] = job_key(id), pack_job(0, args, {}, now)
    else
      end_execution(id, { a = args, et = now }, 'skipped', 'backlog_full', {})
      return false
    end
    return true
  end

  -- Write what was gathered, so that the commands of a single execution see it.
  local function write_gathered()
    if #admitted > 0 then
      redis.call('ZADD', of(workspace, 'admitted'), unpack(admitted))
      admitted = {}
    end
    if #backlog > 0 then
      redis.call('ZADD', of(workspace, 'backlog'), unpack(backlog))
      backlog = {}
    end
  end

  -- Returns whether an execution was made. `behind`: the slots before or after this one are due as well.
  local function fire_slot(trigger, slot, state, behind)
    local id = workspace .. ':' .. trigger .. ':' .. whole(slot)
    if redis.call('EXISTS', job_key(id), result_key(id)) > 0 then
      return false -- the clock went back: this slot has had its execution
    end
    count(workspace, trigger, slot, 'due')
    local rules = state[RULES]
    local args = { workspace, trigger, slot, state[BORN] }
    local caught_up = now - slot > (rules and rules.deadline or usual_deadline)
    if not rules and not behind and not caught_up then
      return fire_plain(trigger, slot, id, args)
    end
    rules = rules or {}
    if rules.once and may_have_fired(slot) then
      end_execution(id, { a = args, et = now }, 'missed', 'data_loss', {})
      return false
    end
    if caught_up then
      args[5] = 'c'
    end
    write_gathered()
    local overlap = behind and 'after' or rules.overlap or 'allow'
    local open = open_execution(id, args, overlap, rules.queue, ready_at(id, slot, rules))
    handled, replaced = handled + SLOWER + replaced, 0 -- those that were replaced took as long
    admitted_count = redis.call('ZCARD', of(workspace, 'admitted'))
    backlog_count = redis.call('ZCARD', of(workspace, 'backlog'))
    return open
  end

  -- Fire a trigger's due slots, within the budget. Returns its next slot, the place of the first held one
  -- after it, whether a slot is too late to be decided here, and whether the trigger has finished.
  local function fire_trigger(trigger, slot, state)
    local rules, notes = state[RULES] or {}, state[NOTES] or {}
    local next_held, behind = HELD, notes.behind or false
    local function leave(next_slot, ...)
      notes.behind = behind and (not next_slot or next_slot <= now) or nil
      state[NOTES] = next(notes) and notes or false
      return next_slot, ...
    end
    while slot and slot <= now and handled < budget do
      local following = state[next_held]
      if not in_span(spans, slot) then
        if now - slot > (rules.deadline or usual_deadline) and slot > (notes.caught or 0) then
          return leave(nil, #state + 1, true, false)
        end
        behind = behind or following ~= nil and following <= now
        if fire_slot(trigger, slot, state, behind) then
          made = made + 1
          if rules.max_runs then
            notes.runs = (notes.runs or 0) + 1
            if notes.runs >= rules.max_runs then
              state[AFTER] = slot
              handled = handled + 1
              return leave(nil, #state + 1, false, true)
            end
          end
        end
      end
      handled = handled + 1
      state[AFTER] = slot
      slot = following
      next_held = next_held + 1
    end
    return leave(slot, next_held, false, false)
  end

  for index, trigger in ipairs(triggers) do
    local state = try_unpack(states[index])
    if not state then
      -- In the index without a state that can be read: nothing to fire, and nobody else to hold up.
      dry[#dry + 1] = trigger
      redis.call('HSET', of(workspace, 'errors'), trigger, 'the stored state is unreadable; replace the trigger')
    else
      local slot, next_held, too_late, finished = fire_trigger(trigger, tonumber(picked[index * 2]), state)
      local kept = { state[BORN], state[VERSION], state[POSITION], state[AFTER], state[RULES], state[NOTES] }
      for held = next_held, #state do
        kept[#kept + 1] = state[held]
      end
      new_states[#new_states + 1], new_states[#new_states + 2] = trigger, cmsgpack.pack(kept)
      if slot then
        new_due[#new_due + 1], new_due[#new_due + 2] = whole(slot), trigger
        local last = kept[#kept]
        if #kept < HELD or last - now < look_ahead / 2 then
          -- Soon enough, but not amid the burst that the slot may be part of.
          local at = slot - now > look_ahead and now + math.min(10000, look_ahead / 4) or now
          redis.call('ZADD', refills_key, 'NX', whole(at), workspace .. ':' .. trigger)
        end
      else
        dry[#dry + 1] = trigger
        if finished then
          redis.call('SADD', of(workspace, 'finished'), trigger)
          redis.call('ZREM', refills_key, workspace .. ':' .. trigger)
        else
          ran_dry[#ran_dry + 1] = workspace .. ':' .. trigger
          redis.call('SADD', of(workspace, 'dry'), trigger)
          redis.call('ZADD', refills_key, now_text, workspace .. ':' .. trigger)
        end
        handled = handled + (too_late and 1 or 0)
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
  write_gathered()
  if backlog_count > 0 and (limit == 0 or admitted_count < limit) then
    let_in = let_in + admit_next(workspace) -- nothing is left waiting beside a free place, whatever left it so
  end
  index_workspace(workspace)
end

-- Let the next in where rates do so by now. A time beyond the latest one is from before the clock went back.
local any_paced = redis.call('EXISTS', paced_key) == 1
if only == '' and any_paced then
  for _, range in ipairs({ { '-inf', now_text }, { '(' .. whole(now + LOOKED_AT_AFTER), '+inf' } }) do
    local paced = redis.call('ZRANGEBYSCORE', paced_key, range[1], range[2], 'LIMIT', 0, PACED_AT_ONCE)
    for _, workspace in ipairs(paced) do
      let_in = let_in + admit_next(workspace)
      if not noted[workspace] then
        redis.call('ZREM', paced_key, workspace)
      end
    end
  end
end

local workspaces = { only }
if only == '' then
  workspaces = redis.call('ZRANGEBYSCORE', due_key, '-inf', now_text, 'LIMIT', 0, WORKSPACES_AT_ONCE)
end
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
end
if made + let_in > 0 then
  redis.call('PUBLISH', wake_channel, 'fired')
end
settle_call()
local first = tonumber(redis.call('ZRANGE', due_key, 0, 0, 'WITHSCORES')[2] or math.huge)
local next_look = first
if any_paced or next(noted) then
  local paced = tonumber(redis.call('ZRANGE', paced_key, 0, 0, 'WITHSCORES')[2] or math.huge)
  next_look = math.min(first, math.max(paced, now + PACED_EACH))
end
return { made, handled, now, next_look < math.huge and next_look or -1, ran_dry, verdict }
