-- Put values that were sealed anew in the place of those that they were made of, where these are still stored:
-- what somebody has written meanwhile stays.
-- Safe to run twice: the second run finds the new ones.
-- KEYS: the shard's root
-- ARGV: now, workspace, hash of the workspace's ('' for strings: then a field is a whole key), then for each
--       value: field, old, new
-- RETURNS: how many are stored as they should be
--#include _keys

local workspace, hash = ARGV[2], ARGV[3]
local FIRST_VALUE = 4
local stored = 0

for index = FIRST_VALUE, #ARGV, 3 do
  local field, old, new = ARGV[index], ARGV[index + 1], ARGV[index + 2]
  local live
  if hash == '' then
    live = redis.call('GET', field)
  else
    live = redis.call('HGET', of(workspace, hash), field)
  end
  if live == old and hash == '' then
    redis.call('SET', field, new, 'KEEPTTL')
  elseif live == old then
    redis.call('HSET', of(workspace, hash), field, new)
  end
  if live == old or live == new then
    stored = stored + 1
  end
end
if hash == 'definitions' and stored > 0 then
  -- A change that was prepared beside the old bytes has to prepare anew: it would take them for others.
  redis.call('HSET', of(workspace, 'meta'), 'serial', redis.call('HINCRBY', root, 'serial', 1))
  redis.call('HDEL', of(workspace, 'meta'), 'bytes') -- they are measured again, see app/store/sizes.py
end
if hash == 'requests' and stored > 0 then
  redis.call('HDEL', of(workspace, 'meta'), 'requests') -- their bytes are counted again, see _requests.lua
end
return stored
