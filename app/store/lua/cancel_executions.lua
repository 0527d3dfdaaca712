-- Cancel executions wherever they are; what is being sent is cut off. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, then the ids
-- RETURNS: for each: 'cancelled', 'finished' (it had ended before) or 'none'
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end

use_policy(ARGV[2])
go_on_when_full()
local FIRST_ID = 3

local reply = {}
for index = FIRST_ID, #ARGV do
  local id = ARGV[index]
  local packed = redis.call('GET', job_key(id))
  local became = 'none'
  if packed then
    cancel_execution(id, packed, 'requested')
    became = 'cancelled'
  elseif redis.call('EXISTS', result_key(id)) == 1 then
    became = 'finished'
  end
  reply[#reply + 1] = became
end
settle_call()
return reply
