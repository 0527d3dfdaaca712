-- Add an entry to an audit, which keeps about so many. That of a workspace goes with it: nothing is noted where
-- there is none (any more).
-- Safe to run twice: an entry that is among the last ones is not added again.
-- KEYS: the shard's root, the stream
-- ARGV: now, workspace (empty: the stream belongs to none), the entry's token, the entry, how many are kept
-- RETURNS: 1 noted, 0 there is no such workspace
--#include _keys

local stream = KEYS[2]
local workspace, token, entry, keep = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if workspace ~= '' and redis.call('EXISTS', of(workspace, 'meta')) == 0 then
  return 0
end
for _, last in ipairs(redis.call('XREVRANGE', stream, '+', '-', 'COUNT', 50)) do
  if last[2][2] == token then
    return 1
  end
end
redis.call('XADD', stream, 'MAXLEN', '~', keep, '*', 'token', token, 'entry', entry)
return 1
