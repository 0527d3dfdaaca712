-- Opening an execution by the rules of its trigger. Needs _end.lua and what that needs.

local replaced = 0 -- executions that were cancelled for the next slot of their trigger

-- When an execution may start: its slot and a stable part of the trigger's jitter.
local function ready_at(id, slot, rules)
  if not rules or not rules.jitter then
    return slot
  end
  return slot + tonumber(string.sub(redis.sha1hex(id), 1, 8), 16) % (rules.jitter + 1)
end

-- Cancel every execution of a trigger's line, those that wait first.
local function replace_line(workspace, trigger)
  local ids = redis.call('ZRANGE', of(workspace, 'line:' .. trigger), 0, 199)
  for _, id in ipairs(redis.call('SMEMBERS', of(workspace, 'active:' .. trigger))) do
    ids[#ids + 1] = id
  end
  for _, id in ipairs(ids) do
    local packed = redis.call('GET', job_key(id))
    if packed then
      cancel_execution(id, packed, 'replaced')
      replaced = replaced + 1
    else
      leave_line(workspace, trigger, id)
    end
  end
end

-- Open an execution. `args` are its job's: workspace, trigger, slot, born, marks. `overlap` is how it meets
-- what is open of its trigger: allow (it takes no part), beside (it takes its turn at once), skip, queue (behind
-- what is open, up to `limit`), replace, or after (behind what is open).
-- Returns whether it is open: else it was skipped.
local function open_execution(id, args, overlap, limit, ready)
  local workspace, trigger = args[1], args[2]
  local marks, waiting = args[5], false
  local function skip(reason)
    args[5] = marks
    end_execution(id, { a = args, et = now }, 'skipped', reason, {})
    return false
  end
  if overlap ~= 'allow' then
    args[5] = (marks or '') .. 'l'
    local busy = overlap ~= 'beside' and redis.call('EXISTS', of(workspace, 'active:' .. trigger)) == 1
    if busy and overlap == 'replace' then
      replace_line(workspace, trigger)
      busy = redis.call('EXISTS', of(workspace, 'active:' .. trigger)) == 1
    elseif busy and overlap == 'skip'
      or overlap == 'queue' and redis.call('ZCARD', of(workspace, 'line:' .. trigger)) >= limit then
      return skip('overlap')
    end
    waiting = busy
  end
  local behind = waiting or marked(args, 'c') or not has_place(workspace)
  if is_crowded(workspace) or behind and redis.call('ZCARD', of(workspace, 'backlog'))
    + redis.call('ZCARD', of(workspace, 'late')) + redis.call('ZCARD', of(workspace, 'lined'))
    >= policy.max_backlog then
    return skip('backlog_full')
  end
  redis.call('SET', job_key(id), pack_job(0, args, {}, now))
  if waiting then
    redis.call('ZADD', of(workspace, 'line:' .. trigger), whole(args[3]), id)
    redis.call('ZADD', of(workspace, 'lined'), whole(now), id)
    return true
  end
  if overlap ~= 'allow' then
    redis.call('SADD', of(workspace, 'active:' .. trigger), id)
  end
  place(workspace, id, args, ready)
  return true
end
