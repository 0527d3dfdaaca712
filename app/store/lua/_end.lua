-- Every end of an execution goes through end_execution: it releases what the execution held, writes the
-- final record and counters, and keeps retention. Needs _keys.lua and _admit.lua.

local keep = { succeeded = 0, failed = 0, cancelled = 0, skipped = 0, missed = 0 } -- set by use_policy
local keep_ms, keep_days, keep_slots = 0, 0, 0

-- The retention and admission arguments that every ending script takes, as one msgpack array:
-- max_concurrency, keep_succeeded, keep_failed, keep_succeeded ms, keep_days, keep_slots.
local function use_policy(packed)
  local policy = cmsgpack.unpack(packed)
  admission_default = policy[1]
  keep.succeeded, keep.cancelled, keep.skipped, keep.missed = policy[2], policy[2], policy[2], policy[2]
  keep.failed = policy[3]
  keep_ms, keep_days, keep_slots = policy[4], policy[5], policy[6]
end

-- Count something that happened to a slot, on the slot's own UTC day.
local function count(workspace, trigger, slot, what, by)
  local day = math.floor(slot / 86400000)
  local key = of(workspace, 'day:' .. day)
  if redis.call('HINCRBY', key, trigger .. ':' .. what, by or 1) == 1 then
    redis.call('EXPIREAT', key, (day + 1 + keep_days) * 86400)
  end
end

-- A trigger's last slots, newest last, 17 bytes each: slot in ms (6), state (1), HTTP status (2),
-- lateness and duration in ms (4 each); all big-endian. app/store/executions.py reads them.
local STATE_CODES = { succeeded = 1, failed = 2, cancelled = 3, skipped = 4, missed = 5 }
local SLOT_SIZE = 17

local function bounded(number)
  return math.max(0, math.min(number, 4294967295))
end

local function remember_slot(workspace, trigger, slot, state, status, late, duration)
  if keep_slots == 0 then
    return
  end
  local key = of(workspace, 'last')
  local packed = (redis.call('HGET', key, trigger) or '')
    .. struct.pack('>I6BI2I4I4', slot, STATE_CODES[state], status, bounded(late), bounded(duration))
  if #packed > keep_slots * SLOT_SIZE then
    packed = string.sub(packed, -keep_slots * SLOT_SIZE)
  end
  redis.call('HSET', key, trigger, packed)
end

-- An open execution in arq's job format: t, f, a, k, et. An empty map has to be written by hand,
-- because cmsgpack packs an empty table as an array.
local function pack_job(made, args, attempts, queued)
  local k = '\128'
  if #attempts > 0 then
    k = '\129\168attempts' .. cmsgpack.pack(attempts)
  end
  return '\133\161t' .. cmsgpack.pack(made) .. '\161f\164send\161a' .. cmsgpack.pack(args)
    .. '\161k' .. k .. '\162et' .. cmsgpack.pack(queued)
end

-- A finished one in arq's result format; the outcome is in r.
local function pack_result(id, args, queued, started, state, reason, attempts)
  local list = '\144'
  if #attempts > 0 then
    list = cmsgpack.pack(attempts)
  end
  return '\139\161t' .. cmsgpack.pack(#attempts) .. '\161f\164send\161a' .. cmsgpack.pack(args)
    .. '\161k\128\162et' .. cmsgpack.pack(queued)
    .. '\161s' .. (state == 'succeeded' and '\195' or '\194')
    .. '\161r\131\165state' .. cmsgpack.pack(state) .. '\166reason' .. cmsgpack.pack(reason)
    .. '\168attempts' .. list
    .. '\162st' .. cmsgpack.pack(started) .. '\162ft' .. cmsgpack.pack(now)
    .. '\161q' .. cmsgpack.pack(queue_key) .. '\162id' .. cmsgpack.pack(tag .. id)
end

-- Remove the oldest of a final state beyond its number.
local function trim_number(workspace, state)
  local key = of(workspace, state)
  local excess = redis.call('ZCARD', key) - keep[state]
  if excess > 0 then
    local old = redis.call('ZPOPMIN', key, math.min(excess, 100))
    for index = 1, #old, 2 do
      redis.call('UNLINK', result_key(old[index]))
    end
  end
end

-- End an execution. `attempts` are all its attempts, `job` its unpacked arq job; an execution that never
-- was open (skipped, missed) has a job of its own making. The record's room is freed before it is taken,
-- so that under maxmemory this script is not refused half way.
local function end_execution(id, job, state, reason, attempts)
  local workspace, trigger, slot = split_id(id)
  redis.call('DEL', job_key(id), owner_key(id))
  redis.call('ZREM', queue_key, tag .. id)
  local held = redis.call('ZREM', of(workspace, 'admitted'), id)
  if held == 0 then
    redis.call('ZREM', of(workspace, 'backlog'), id)
    redis.call('ZREM', of(workspace, 'retrying'), id)
  end
  local started, late, status, duration = now, 0, 0, 0
  local last = attempts[#attempts]
  if last then
    started, status = attempts[1][1], last[3]
    late = started - slot
    duration = last[1] + last[2] - started
  end
  redis.call('SET', result_key(id), pack_result(id, job.a, job.et, started, state, reason, attempts))
  redis.call('ZADD', of(workspace, state), whole(now), id)
  redis.call('ZADD', trims_key, 'NX', whole(now + keep_ms), workspace)
  count(workspace, trigger, slot, reason == '' and state or state .. ':' .. reason)
  remember_slot(workspace, trigger, slot, state, status, late, duration)
  trim_number(workspace, state)
  if held == 1 then
    admit_next(workspace)
  end
end

-- An unpacked job or state; nil for what is missing or none of ours.
local function try_unpack(packed)
  local fine, value = pcall(cmsgpack.unpack, packed or '')
  return fine and type(value) == 'table' and value or nil
end

-- Take out an execution whose job is missing or unreadable: there is nothing to send and nothing to keep.
local function drop_unreadable(id)
  local workspace, trigger, slot = split_id(id)
  redis.call('DEL', job_key(id), owner_key(id))
  redis.call('ZREM', queue_key, tag .. id)
  redis.call('HINCRBY', root, 'strays', 1)
  if not workspace then
    return
  end
  local held = redis.call('ZREM', of(workspace, 'admitted'), id)
  local waiting = redis.call('ZREM', of(workspace, 'backlog'), id) + redis.call('ZREM', of(workspace, 'retrying'), id)
  if held + waiting > 0 then
    count(workspace, trigger, slot, 'failed:unreadable')
  end
  if held == 1 then
    admit_next(workspace)
  end
end

-- Whether the trigger that an execution was made for is still in its workspace's set.
local function alive(workspace, trigger, born)
  local state = redis.call('HGET', of(workspace, 'states'), trigger)
  if not state then
    return false
  end
  state = cmsgpack.unpack(state)
  return state[BORN] == born, state
end
