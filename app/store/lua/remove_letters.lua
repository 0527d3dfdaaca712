-- Remove dead letters. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, then the ids
-- RETURNS: how many were removed
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end

use_policy(ARGV[2])
go_on_when_full()
local workspace = ARGV[3]
local FIRST_ID = 4

local removed = 0
for index = FIRST_ID, #ARGV do
  local id = ARGV[index]
  if redis.call('ZREM', of(workspace, 'failed'), id) == 1 then
    forget_finished(workspace, 'failed', id)
    removed = removed + 1
  end
end
return removed
