-- What every process of a deployment has to agree on; the first one sets it. What was stored before there was
-- such a note has one shard and the first format.
-- Safe to run twice: what is there is left alone.
-- KEYS: the first shard's root, the deployment's hash, the first shard's workspaces
-- ARGV: now, shards, format
-- RETURNS: the shards and the format that are stored, the number of shards that workspaces are being moved
--          to (0: none)
--#include _keys

local deployment, workspaces = KEYS[2], KEYS[3]
local shards, format = ARGV[2], ARGV[3]

local known = redis.call('HMGET', deployment, 'shards', 'format', 'moving')
if not known[1] then
  if redis.call('EXISTS', workspaces) == 1 then
    shards, format = '1', '1'
  end
  redis.call('HSET', deployment, 'shards', shards, 'format', format)
  known = { shards, format, false }
end
return { tonumber(known[1]), tonumber(known[2]), tonumber(known[3] or 0) }
