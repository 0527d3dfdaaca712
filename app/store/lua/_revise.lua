-- A new revision of a workspace's trigger set. Needs _keys.lua.

-- Returns its number. `undo` is what makes the set before it out of the set after it.
local function revise(workspace, before, head, undo, keep)
  local revision = before + 1
  redis.call('HSET', of(workspace, 'meta'), 'revision', revision)
  redis.call('HSET', of(workspace, 'revisions'), revision, head)
  redis.call('HSET', of(workspace, 'undo'), revision, undo)
  redis.call('HDEL', of(workspace, 'revisions'), revision - keep)
  redis.call('HDEL', of(workspace, 'undo'), revision - keep)
  return revision
end

-- Note that a workspace exists.
local function register(workspace)
  redis.call('ZADD', prefix .. 'workspaces', 0, workspace)
  redis.call('HSETNX', of(workspace, 'meta'), 'created', whole(now))
end
