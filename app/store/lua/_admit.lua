-- Admission: at most `max_concurrency` executions of a workspace are in arq's queue, ready or running.

local admission_default = 0 -- set by the script from its arguments; 0: no bound

local function max_concurrency(workspace)
  return tonumber(redis.call('HGET', of(workspace, 'meta'), 'max_concurrency') or admission_default)
end

local function has_place(workspace, admitted_count)
  local limit = max_concurrency(workspace)
  return limit == 0 or admitted_count < limit
end

-- Put an open execution into arq's queue.
local function admit(workspace, id, ready)
  redis.call('ZADD', of(workspace, 'admitted'), whole(now), id)
  redis.call('ZADD', queue_key, ready, tag .. id)
end

local ADMIT_AT_ONCE = 200

-- Fill free places of a workspace from its backlog, oldest slot first; whoever fires or finishes goes on.
local function admit_next(workspace)
  local admitted = of(workspace, 'admitted')
  local count = redis.call('ZCARD', admitted)
  local limit = max_concurrency(workspace)
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
