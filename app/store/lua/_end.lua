-- Every end of an execution goes through end_execution: it releases what the execution held, writes the
-- final record and counters, and keeps retention. Needs _keys.lua, _admit.lua, _count.lua, _line.lua and
-- _requests.lua.

-- A trigger's last slots, newest last, 17 bytes each: slot in ms (6), state (1), HTTP status (2),
-- lateness and duration in ms (4 each); all big-endian. app/store/executions.py reads them.
-- There are up to twice as many as are wanted: then the older half goes, many at once, into the timings of
-- its days. So a trigger's timings of a day are those stored and those of its last slots.
local STATE_CODES = { succeeded = 1, failed = 2, cancelled = 3, skipped = 4, missed = 5 }
local SLOT_SIZE = 17

local function bounded(number)
  return math.max(0, math.min(number, 4294967295))
end

-- Put last slots that go into the timings.
local function fold_slots(workspace, trigger, packed)
  for from = 1, #packed, SLOT_SIZE do
    local slot, state, _, late, duration = struct.unpack('>I6BI2I4I4', packed, from)
    if state == STATE_CODES.succeeded or state == STATE_CODES.failed then
      time(workspace, trigger, slot, duration, late)
    end
  end
end

-- Returns the state that was remembered before, as its code.
local function remember_slot(workspace, trigger, slot, state, status, late, duration)
  local key, size = of(workspace, 'last'), policy.keep_slots * SLOT_SIZE
  local known = redis.call('HGET', key, trigger) or ''
  local packed = known
    .. struct.pack('>I6BI2I4I4', slot, STATE_CODES[state], status, bounded(late), bounded(duration))
  if #packed > 2 * size then
    fold_slots(workspace, trigger, string.sub(packed, 1, #packed - size))
    packed = string.sub(packed, #packed - size + 1)
  end
  redis.call('HSET', key, trigger, packed)
  return string.byte(known, -SLOT_SIZE + 6)
end

-- Exceptional slots are kept as runs, an array of {first ms, last ms, count, state, reason} a trigger, newest
-- last. A slot that follows its like makes a run longer. Spans in which nothing was due have the count 0.
local function note_run(workspace, trigger, first, last, number, state, reason, follows)
  local key = of(workspace, 'exceptions')
  local packed = redis.call('HGET', key, trigger)
  local runs = packed and cmsgpack.unpack(packed) or {}
  local newest = runs[#runs]
  if follows and newest and newest[4] == state and newest[5] == reason then
    newest[1], newest[2] = math.min(newest[1], first), math.max(newest[2], last)
    newest[3] = newest[3] + number
  else
    runs[#runs + 1] = { first, last, number, state, reason }
    if #runs > policy.keep_runs then
      table.remove(runs, 1)
    end
  end
  redis.call('HSET', key, trigger, cmsgpack.pack(runs))
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

-- Remove what is kept of a finished execution that has left its set.
local function forget_finished(workspace, state, id)
  redis.call('UNLINK', result_key(id))
  if state == 'failed' then
    drop_request(workspace, id, LETTER)
    redis.call('HDEL', of(workspace, 'retried'), id)
  end
end

-- What an end brings with it for its workspace is done once a call, by settle_call: retention and places.
local trims, freed = {}, {} -- workspace → final states that have grown; workspaces with places to fill

local function note_end(workspace, state, is_place_free)
  trims[workspace] = trims[workspace] or {}
  trims[workspace][state] = true
  if is_place_free then
    freed[workspace] = true
  end
end

local TRIMMED_AT_ONCE = 1000 -- more than a call ends

-- Remove the oldest of a final state beyond its number, and the oldest dead letters whose requests take more bytes
-- than they may, but for the last one.
local function trim_kept(workspace, state)
  local key = of(workspace, state)
  local excess = redis.call('ZCARD', key) - policy_of(workspace)[state]
  if excess > 0 then
    local old = redis.call('ZPOPMIN', key, math.min(excess, TRIMMED_AT_ONCE))
    for index = 1, #old, 2 do
      forget_finished(workspace, state, old[index])
    end
  end
  for _ = 1, state == 'failed' and TRIMMED_AT_ONCE or 0 do
    if request_bytes(workspace, LETTER) <= policy.max_kept_bytes or redis.call('ZCARD', key) <= 1 then
      break
    end
    forget_finished(workspace, state, redis.call('ZPOPMIN', key)[1])
  end
end

-- Every script that includes this ends with it: it writes what was gathered.
local function settle_call()
  for workspace, states in pairs(trims) do
    for state in pairs(states) do
      trim_kept(workspace, state)
    end
    redis.call('ZADD', trims_key, 'NX', whole(now + policy_of(workspace).keep_ms), workspace)
  end
  for workspace in pairs(freed) do
    admit_next(workspace)
  end
  flush_counts()
end

-- End an execution. `attempts` are all its attempts, `job` its unpacked arq job; an execution that never
-- was open (skipped, missed) has a job of its own making. A failed one keeps its request: `definition` as it
-- was sent, else what it has of its own, else its trigger's of now. The record's room is freed before it is
-- taken, so that under maxmemory this script is not refused half way.
local function end_execution(id, job, state, reason, attempts, definition)
  local workspace, trigger, slot, own = split_id(id)
  redis.call('DEL', job_key(id), owner_key(id))
  redis.call('ZREM', queue_key, tag .. id)
  local held = redis.call('ZREM', of(workspace, 'admitted'), id)
  if held == 0 then
    redis.call('ZREM', of(workspace, 'backlog'), id)
    redis.call('ZREM', of(workspace, 'waiting'), id)
    redis.call('ZREM', of(workspace, 'late'), id)
  end
  local started, late, status, duration = now, 0, 0, 0
  local last = attempts[#attempts]
  if last then
    started, status = attempts[1][1], last[3]
    late = own and 0 or math.max(0, started - slot)
    duration = last[1] + last[2] - started
  end
  redis.call('SET', result_key(id), pack_result(id, job.a, job.et, started, state, reason, attempts))
  redis.call('ZADD', of(workspace, state), whole(now), id)
  local what = reason == '' and state or state .. ':' .. reason
  if own then
    count(workspace, trigger, now, 'unscheduled:' .. what)
  else
    count(workspace, trigger, slot, what)
    local before = remember_slot(workspace, trigger, slot, state, status, late, duration)
    if state ~= 'succeeded' then
      note_run(workspace, trigger, slot, slot, 1, state, reason, before == STATE_CODES[state])
    end
  end
  if state == 'succeeded' or state == 'failed' then
    if own then
      time(workspace, '', now, bounded(duration), false)
      time(workspace, trigger, now, bounded(duration), false)
    else
      note_recent(workspace, slot, bounded(duration), bounded(late))
    end
  end
  if state == 'failed' then
    if not marked(job.a, 'o') then
      definition = definition or redis.call('HGET', of(workspace, 'definitions'), trigger)
      if definition then
        keep_request(workspace, id, LETTER, definition)
      end
    else
      pass_request(workspace, id)
    end
  elseif marked(job.a, 'o') then
    drop_request(workspace, id, OPEN)
  end
  local letter = job.a[6] -- the dead letter that this retried: it can be retried again
  if letter and (state == 'cancelled' or state == 'skipped')
    and redis.call('HGET', of(workspace, 'retried'), letter) == id then
    redis.call('HDEL', of(workspace, 'retried'), letter)
  end
  if marked(job.a, 'l') then
    leave_line(workspace, trigger, id)
  end
  note_end(workspace, state, held == 1)
end

-- The attempts of an open execution, with the one that its owner's key tells of ended as `kind`.
local function cut_attempt(job, owner, kind, message)
  local attempts = job.k.attempts or {}
  local worker, started = string.match(owner, '^(.*):%d+|(%d+)$')
  attempts[#attempts + 1] = { tonumber(started), math.max(0, now - tonumber(started)), 0, kind, message, '', worker }
  return attempts
end

-- Cancel an open execution, wherever it is; the worker that sends it is told to stop.
local function cancel_execution(id, packed, reason)
  local owner = redis.call('GET', owner_key(id))
  local job = cmsgpack.unpack(packed)
  local attempts = job.k.attempts or {}
  if owner then
    attempts = cut_attempt(job, owner, 'cancelled', 'the request was cut off: ' .. reason)
    redis.call('PUBLISH', wake_channel, 'cancel ' .. id)
  end
  end_execution(id, job, 'cancelled', reason, attempts)
end

-- Take out an execution whose job is missing or unreadable: there is nothing to send and nothing to keep.
local function drop_unreadable(id)
  local workspace, trigger, slot, own = split_id(id)
  redis.call('DEL', job_key(id), owner_key(id))
  redis.call('ZREM', queue_key, tag .. id)
  redis.call('HINCRBY', root, 'strays', 1)
  if not workspace then
    return
  end
  local held = redis.call('ZREM', of(workspace, 'admitted'), id)
  local waiting = 0
  for _, set in ipairs({ 'backlog', 'waiting', 'late', 'lined' }) do
    waiting = waiting + redis.call('ZREM', of(workspace, set), id)
  end
  drop_request(workspace, id, OPEN)
  if held + waiting > 0 then
    count(workspace, trigger, own and now or slot, own and 'unscheduled:failed:unreadable' or 'failed:unreadable')
  end
  leave_line(workspace, trigger, id)
  if held == 1 then
    freed[workspace] = true
  end
end

-- Whether the trigger that an execution was made for is still in its workspace's set; with its state.
local function alive(workspace, trigger, args)
  local state = try_unpack(redis.call('HGET', of(workspace, 'states'), trigger))
  if marked(args, 'f') then
    return true, state
  end
  return state ~= nil and state[BORN] == args[4], state
end
