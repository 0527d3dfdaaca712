-- The requests that executions have of their own: of runs and retries that are open, and of dead letters, as they
-- were sent. All lie in a workspace's `requests`, and only these functions set and remove them. In its meta stands
-- how many are counted, and the bytes of each kind; where another number is there (a worker of a former version
-- has changed them, or they were sealed anew) they are counted again. Needs _keys.lua.

local OPEN, LETTER = 'open_bytes', 'letter_bytes' -- the kinds, by their fields in the meta

local function note_request(workspace, kind, number, bytes)
  redis.call('HINCRBY', of(workspace, 'meta'), 'requests', number)
  redis.call('HINCRBY', of(workspace, 'meta'), kind, bytes)
end

local function keep_request(workspace, id, kind, request)
  local before = redis.call('HSTRLEN', of(workspace, 'requests'), id)
  local is_new = redis.call('HSET', of(workspace, 'requests'), id, request)
  note_request(workspace, kind, is_new, #request - before)
end

local function drop_request(workspace, id, kind)
  local bytes = redis.call('HSTRLEN', of(workspace, 'requests'), id)
  if redis.call('HDEL', of(workspace, 'requests'), id) == 1 then
    note_request(workspace, kind, -1, -bytes)
  end
end

-- An open execution becomes a dead letter, and keeps its request.
local function pass_request(workspace, id)
  local bytes = redis.call('HSTRLEN', of(workspace, 'requests'), id)
  note_request(workspace, OPEN, 0, -bytes)
  note_request(workspace, LETTER, 0, bytes)
end

local function count_requests(workspace)
  local ids = redis.call('HKEYS', of(workspace, 'requests'))
  local bytes = { [OPEN] = 0, [LETTER] = 0 }
  for _, id in ipairs(ids) do
    local kind = redis.call('ZSCORE', of(workspace, 'failed'), id) and LETTER or OPEN
    bytes[kind] = bytes[kind] + redis.call('HSTRLEN', of(workspace, 'requests'), id)
  end
  redis.call('HSET', of(workspace, 'meta'), 'requests', #ids, OPEN, bytes[OPEN], LETTER, bytes[LETTER])
  return bytes
end

-- The bytes of a kind. Not to be asked in the middle of an end.
local function request_bytes(workspace, kind)
  local noted = redis.call('HMGET', of(workspace, 'meta'), 'requests', kind)
  if tonumber(noted[1] or 0) ~= redis.call('HLEN', of(workspace, 'requests')) then
    return count_requests(workspace)[kind]
  end
  return tonumber(noted[2] or 0)
end
