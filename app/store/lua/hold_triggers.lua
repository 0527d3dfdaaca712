-- Pause or resume triggers. Safe to run twice: what is paused stays so, with the note given last.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, what ('pause' or 'resume'), note, whether what is due has to be fired before a
--       pause (1 or 0), then the triggers
-- RETURNS: for each trigger: 1 changed, 0 was so already, -1 there is none; or 'due' (slots have to be fired
--          first)
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end
--#include _trigger
--#include _pause

use_policy(ARGV[2])
go_on_when_full()
local workspace, what, note = ARGV[3], ARGV[4], ARGV[5]
local fire_first = ARGV[6] == '1'
local FIRST_TRIGGER = 7

if what == 'pause' and fire_first and redis.call('HEXISTS', of(workspace, 'meta'), 'paused') == 0 then
  for index = FIRST_TRIGGER, #ARGV do
    local trigger = ARGV[index]
    if unsettled(workspace, trigger) then
      return 'due'
    end
  end
end

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
