-- Pause or resume triggers. Safe to run twice: what is paused stays so, with the note given last.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, what ('pause' or 'resume'), note, then the triggers
-- RETURNS: for each trigger: 1 changed, 0 was so already, -1 there is none
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _end
--#include _trigger
--#include _pause

use_policy(ARGV[2])
go_on_when_full()
local workspace, what, note = ARGV[3], ARGV[4], ARGV[5]
local FIRST_TRIGGER = 6

local reply = {}
for index = FIRST_TRIGGER, #ARGV do
  local trigger = ARGV[index]
  local changed
  if redis.call('HEXISTS', of(workspace, 'states'), trigger) == 0 then
    changed = -1
  elseif what == 'pause' then
    changed = pause_trigger(workspace, trigger, note) and 1 or 0
  else
    changed = resume_trigger(workspace, trigger) and 1 or 0
  end
  reply[#reply + 1] = changed
end
return reply
