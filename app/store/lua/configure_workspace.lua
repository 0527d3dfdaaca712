-- Set or unset what a workspace chooses for itself; it exists from then on. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, workspace, then names and values; an empty value unsets
-- RETURNS: 1 done, 0 the workspace is being erased
--#include _keys
--#include _revise

local workspace = ARGV[2]
local FIRST_NAME = 3
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
return 1
