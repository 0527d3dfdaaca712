-- A trigger's line: its executions that go one after another. `active:T` holds those that have their turn,
-- `line:T` those that wait for it, `lined` all of a workspace's that wait. Whether an execution takes part is
-- marked in its job. Needs _keys.lua and _admit.lua.

-- The marks of an execution, letters in the fifth argument of its job:
--   l  takes part in its trigger's line
--   c  caught up: sent when no live execution is ready
--   o  has a request of its own, in `requests`
--   f  free: not void when its trigger is removed
--   1  at most once, whatever its trigger says by now
local function marked(args, mark)
  return args[5] and string.find(args[5], mark, 1, true) ~= nil
end

-- Put an open execution where it waits for a worker, from the time on at which it may start.
local function place(workspace, id, args, ready)
  if marked(args, 'c') then
    redis.call('ZADD', of(workspace, 'late'), whole(args[3]), id)
    redis.call('ZADD', late_key, 'NX', whole(now), workspace)
  elseif ready > now then
    redis.call('ZADD', of(workspace, 'waiting'), whole(now), id)
    redis.call('ZADD', queue_key, whole(ready), tag .. id)
  elseif has_place(workspace) and redis.call('EXISTS', of(workspace, 'backlog')) == 0 then
    admit(workspace, id, whole(ready))
  else
    redis.call('ZADD', of(workspace, 'backlog'), whole(ready), id)
    note_rate(workspace)
  end
end

-- Take an execution out of its trigger's line. When nobody else has the turn, the next has it.
local function leave_line(workspace, trigger, id)
  local active, line = of(workspace, 'active:' .. trigger), of(workspace, 'line:' .. trigger)
  redis.call('SREM', active, id)
  redis.call('ZREM', line, id)
  redis.call('ZREM', of(workspace, 'lined'), id)
  while redis.call('EXISTS', active) == 0 do
    local following = redis.call('ZPOPMIN', line)[1]
    if not following then
      return
    end
    redis.call('ZREM', of(workspace, 'lined'), following)
    local packed = redis.call('GET', job_key(following))
    if packed then
      redis.call('SADD', active, following)
      place(workspace, following, cmsgpack.unpack(packed).a, now)
    end
  end
end
