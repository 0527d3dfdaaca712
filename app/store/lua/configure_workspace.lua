-- Set or unset what a workspace chooses for itself; it exists from then on. What waits gets the places that
-- there are now, and what is kept too long by now goes at the next look. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, then names and values; an empty value unsets
-- RETURNS: 1 done, 0 the workspace is being erased
--#include _keys
--#include _admit
--#include _revise

use_policy(ARGV[2])
local workspace = ARGV[3]
local FIRST_NAME = 4
if redis.call('HEXISTS', of(workspace, 'meta'), 'erasing') == 1 then
  return 0
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
redis.call('ZADD', trims_key, whole(now), workspace)
redis.call('PUBLISH', wake_channel, 'configured')
return 1
