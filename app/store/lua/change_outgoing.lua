-- Store what a workspace's requests go out with beside its triggers, by compare-and-set on its version. The
-- workspace exists from then on.
-- Safe to run twice: a version is given to one change only.
-- KEYS: the shard's root
-- ARGV: now, workspace, the version that the change was made from (empty: there was nothing), the new version,
--       the value; both empty: there is nothing any more
-- RETURNS: 'done', 'conflict' (it is at another version), 'erasing' (the workspace is being erased)
--#include _keys
--#include _revise

local workspace, base, version, value = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local stored_version = redis.call('HGET', outgoing_key, workspace) or ''
if redis.call('HEXISTS', of(workspace, 'meta'), 'erasing') == 1 then
  return 'erasing'
elseif stored_version == version then
  return 'done'
elseif stored_version ~= base then
  return 'conflict'
end
if version == '' then
  redis.call('UNLINK', of(workspace, 'outgoing'))
  redis.call('HDEL', outgoing_key, workspace)
else
  redis.call('HSET', outgoing_key, workspace, version)
  redis.call('SET', of(workspace, 'outgoing'), value)
end
register(workspace)
return 'done'
