-- After a clock was set back, or right again: nothing waits for a time that it showed before. Leases of what runs
-- end a lease from now, retries are due after their delay, chores and turns now; a bounded number a call.
-- What has not been sent yet keeps its time: that is its slot.
-- Safe to run twice: at worst a retry comes sooner than it had to.
-- KEYS: the shard's root
-- ARGV: now, lease ms, cursor ('0' to begin), entries at most
-- RETURNS: the next cursor; 'done' after the last
--#include _keys

local lease, cursor, limit = tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4])
local far, again = whole(now + lease), false

-- When the attempt that a retry follows had ended.
local function attempt_end(member)
  local job = try_unpack(redis.call('GET', 'arq:job:' .. member))
  local attempts = job and type(job.k) == 'table' and job.k.attempts
  local last = attempts and attempts[#attempts]
  return last and last[1] + last[2]
end

go_on_when_full()
for _, key in ipairs({ refills_key, clears_key, trims_key, erases_key, late_key }) do
  local ahead = redis.call('ZRANGEBYSCORE', key, '(' .. whole(now), '+inf', 'LIMIT', 0, limit)
  again = again or #ahead == limit
  for _, member in ipairs(ahead) do
    redis.call('ZADD', key, whole(now), member)
  end
end
local found = redis.call('ZSCAN', queue_key, cursor, 'COUNT', limit)
for index = 1, #found[2], 2 do
  local member, score = found[2][index], tonumber(found[2][index + 1])
  if score > now + lease then
    if redis.call('EXISTS', 'arq:in-progress:' .. member) == 1 then
      redis.call('ZADD', queue_key, far, member)
    else
      local ended = attempt_end(member)
      if ended and ended > now and ended <= score then
        redis.call('ZADD', queue_key, whole(now + score - ended), member)
      end
    end
  end
end
if found[1] == '0' and not again then
  return 'done'
end
return found[1]
