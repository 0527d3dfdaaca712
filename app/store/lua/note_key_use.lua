-- Note that an API key was used; nothing where it is gone. Safe to run twice.
-- KEYS: the shard's root, the hash of API keys, the hash of their last uses
-- ARGV: now, id
-- RETURNS: 1 noted, 0 there is no such key
--#include _keys

local api_keys, uses = KEYS[2], KEYS[3]
local id = ARGV[2]
if redis.call('HEXISTS', api_keys, id) == 0 then
  return 0
end
redis.call('HSET', uses, id, whole(now))
return 1
