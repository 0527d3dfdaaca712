-- Read several things at one moment. Safe to run twice: it changes nothing.
-- KEYS: the shard's root
-- ARGV: now, commands as one msgpack array of arrays
-- RETURNS: the reply to each command
--#include _keys

local commands = cmsgpack.unpack(ARGV[2])
local replies = {}
for index, command in ipairs(commands) do
  replies[index] = redis.call(unpack(command))
end
return replies
