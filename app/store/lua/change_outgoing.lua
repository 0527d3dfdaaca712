-- Store what a workspace's requests go out with beside its triggers, by compare-and-set on its version. The
-- workspace exists from then on.
-- Safe to run twice: a version is given to one change only.
-- KEYS: the shard's root
-- ARGV: now, workspace, the version that the change was made from (0: there was nothing), the new version and
--       its value (0 and empty: there is nothing any more)
-- RETURNS: 'done', 'conflict' (it is at another version), 'erasing' (the workspace is being erased)
--#include _keys
--#include _revise

local workspace, base, version, value = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local stored_version = tonumber(redis.call('ZSCORE', outgoing_key, workspace) or 0)
if redis.call('HEXISTS', of(workspace, 'meta'), 'erasing') == 1 then
  return 'erasing'
elseif stored_version == version then
  return 'done'
elseif stored_version ~= base then
  return 'conflict'
end
if version == 0 then
  redis.call('UNLINK', of(workspace, 'outgoing'))
  redis.call('ZREM', outgoing_key, workspace)
else
  redis.call('ZADD', outgoing_key, whole(version), workspace)
  redis.call('SET', of(workspace, 'outgoing'), value)
end
register(workspace)
return 'done'
