-- Pause or resume a workspace: while it is paused no slot of it is due. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, workspace, what ('pause' or 'resume'), note, whether what is due has to be fired before a pause
--       (1 or 0)
-- RETURNS: 1 changed, 0 was so already, -1 there is no such workspace, 'due' (slots have to be fired first)
--#include _keys

go_on_when_full()
local workspace, what, note, fire_first = ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1'
local meta = of(workspace, 'meta')
local SPANS = 50 -- that a workspace remembers

if not redis.call('ZSCORE', prefix .. 'workspaces', workspace) then
  return -1
end
local known = redis.call('HMGET', meta, 'paused', 'spans')
local paused, spans = try_unpack(known[1]), try_unpack(known[2]) or {}
if what == 'pause' and not paused and fire_first and has_unsettled(workspace) then
  return 'due'
end
if what == 'pause' then
  redis.call('HSET', meta, 'paused', cmsgpack.pack({ paused and paused[1] or now, note }))
elseif paused then
  spans[#spans + 1] = { paused[1], now, paused[2] }
  if #spans > SPANS then
    table.remove(spans, 1)
  end
  redis.call('HSET', meta, 'spans', cmsgpack.pack(spans))
  redis.call('HDEL', meta, 'paused')
end
index_workspace(workspace)
redis.call('PUBLISH', wake_channel, 'replaced')
return (what == 'pause') == (paused == nil) and 1 or 0
