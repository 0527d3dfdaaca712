-- Set or unset what a workspace chooses for itself. A higher `max_concurrency` lets the next executions in at once.
-- Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, create (1: it exists from then on), then names and values; an empty value unsets
-- RETURNS: 'created', 'changed', 'none' (there is no such workspace) or 'erasing' (it is being erased)
--#include _keys
--#include _admit
--#include _revise

use_policy(ARGV[2])
local workspace, create = ARGV[3], ARGV[4] == '1'
local FIRST_NAME = 5
local exists = redis.call('ZSCORE', prefix .. 'workspaces', workspace)
if redis.call('HEXISTS', of(workspace, 'meta'), 'erasing') == 1 then
  return 'erasing'
elseif not exists and not create then
  return 'none'
end
register(workspace)
for index = FIRST_NAME, #ARGV, 2 do
  local name, value = ARGV[index], ARGV[index + 1]
  if value == '' then
    redis.call('HDEL', of(workspace, 'meta'), name)
  else
    redis.call('HSET', of(workspace, 'meta'), name, value)
  end
end
admit_next(workspace)
redis.call('ZADD', trims_key, whole(now), workspace) -- what is kept may be less now
redis.call('PUBLISH', wake_channel, 'fired')
return exists and 'changed' or 'created'
