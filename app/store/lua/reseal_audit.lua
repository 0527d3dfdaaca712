-- Put the copy of an audit, sealed anew, in the place of the audit, with what was noted since it was copied.
-- Nothing where the audit is gone, or another one: the workspace was erased.
-- Safe to run twice: the first run takes the copy away.
-- KEYS: the shard's root, the stream, its copy
-- ARGV: now, the last entry that was copied
-- RETURNS: 1 done, 0 there was nothing to do
--#include _keys

local stream, copy = KEYS[2], KEYS[3]
local last = ARGV[2]

if redis.call('EXISTS', copy) == 0 then
  return 0
elseif #redis.call('XRANGE', stream, last, last) == 0 then
  redis.call('UNLINK', copy)
  return 0
end
for _, entry in ipairs(redis.call('XRANGE', stream, '(' .. last, '+')) do
  redis.call('XADD', copy, entry[1], unpack(entry[2]))
end
redis.call('PERSIST', copy)
redis.call('UNLINK', stream)
redis.call('RENAME', copy, stream)
return 1
