-- Remove finished executions of a workspace that are too old or too many, a bounded number a call, and set
-- when to look again. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, executions at most per state
-- RETURNS: how many were removed
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end

use_policy(ARGV[2])
local workspace, limit = ARGV[3], tonumber(ARGV[4])
local removed, again = 0, nil

for _, state in ipairs({ 'succeeded', 'cancelled', 'skipped', 'missed', 'failed' }) do
  local key = of(workspace, state)
  local by_age = state ~= 'failed'
  local old = {}
  if by_age then
    old = redis.call('ZRANGEBYSCORE', key, '-inf', whole(now - policy_of(workspace).keep_ms), 'LIMIT', 0, limit)
  end
  local excess = redis.call('ZCARD', key) - policy_of(workspace)[state]
  if excess > #old then
    old = redis.call('ZRANGE', key, 0, math.min(excess, limit) - 1)
  end
  for _, id in ipairs(old) do
    redis.call('ZREM', key, id)
    forget_finished(workspace, state, id)
  end
  removed = removed + #old
  if #old == limit then
    again = now
  end
  local first = by_age and redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if first then
    again = math.min(again or math.huge, tonumber(first) + policy_of(workspace).keep_ms)
  end
end

if again then
  redis.call('ZADD', trims_key, whole(math.max(again, now)), workspace)
else
  redis.call('ZREM', trims_key, workspace)
end
return removed
