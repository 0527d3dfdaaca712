-- End what belongs to removed triggers of a workspace, a bounded number of entries a call.
-- Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, part (a set of open executions; or a hash of
--       what is kept of triggers: 'pauses', 'exceptions', 'last'; 'last' comes last), cursor ('0' to begin),
--       entries at most, the chore's time as taken (when all is done, the chore goes if it still is that)
-- RETURNS: the cursor for the next call ('done': there is no more of this part), executions ended
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end

use_policy(ARGV[2])
go_on_when_full()
local workspace, part, cursor, limit = ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local taken_until = ARGV[7]
local ended = 0

if part == 'pauses' or part == 'exceptions' or part == 'last' then
  local page = redis.call('HSCAN', of(workspace, part), cursor, 'COUNT', limit)
  for index = 1, #page[2], 2 do
    if redis.call('HEXISTS', of(workspace, 'states'), page[2][index]) == 0 then
      if part == 'last' then
        fold_slots(workspace, page[2][index], page[2][index + 1])
      end
      redis.call('HDEL', of(workspace, part), page[2][index])
    end
  end
  settle_call()
  if part == 'last' and page[1] == '0' and redis.call('ZSCORE', clears_key, workspace) == taken_until then
    redis.call('ZREM', clears_key, workspace)
  end
  return { page[1] == '0' and 'done' or page[1], 0 }
end

local start = tonumber(cursor)
local ids = redis.call('ZRANGE', of(workspace, part), start, start + limit - 1)
for _, id in ipairs(ids) do
  local packed = redis.call('GET', job_key(id))
  local _, trigger = split_id(id)
  if not packed then
    drop_unreadable(id)
    ended = ended + 1
  elseif redis.call('EXISTS', owner_key(id)) == 0 then -- one that runs may end by itself
    local job = cmsgpack.unpack(packed)
    if not alive(workspace, trigger, job.a) then
      end_execution(id, job, 'cancelled', 'trigger_removed', job.k.attempts or {})
      ended = ended + 1
    end
  end
end
settle_call()
if #ids < limit then
  return { 'done', ended }
end
return { whole(start + limit - ended), ended }
