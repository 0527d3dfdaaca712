-- A new revision of a workspace's trigger set. Needs _keys.lua.

-- Returns its number. `undo` is what makes the set before it out of the set after it. The last `keep` are kept,
-- and fewer where what leads back to them takes more than `most` bytes; the one before stays at any size.
local function revise(workspace, before, head, undo, keep, most)
  local revision = before + 1
  redis.call('HSET', of(workspace, 'meta'), 'revision', revision)
  redis.call('HSET', of(workspace, 'revisions'), revision, head)
  redis.call('HSET', of(workspace, 'undo'), revision, undo)
  local bytes = #undo
  for number = revision - 1, 1, -1 do
    local size = redis.call('HSTRLEN', of(workspace, 'undo'), number)
    if size == 0 then
      break -- older ones are gone, too
    end
    if number <= revision - keep or bytes > most and number < revision - 1 then
      redis.call('HDEL', of(workspace, 'revisions'), number)
      redis.call('HDEL', of(workspace, 'undo'), number)
    end
    bytes = bytes + size
  end
  return revision
end

-- Note that a workspace exists.
local function register(workspace)
  redis.call('ZADD', prefix .. 'workspaces', 0, workspace)
  redis.call('HSETNX', of(workspace, 'meta'), 'created', whole(now))
end
