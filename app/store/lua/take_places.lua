-- Take a place in each of some rate limits, or in none of them: the generic cell rate algorithm. A limit is one
-- number, the time at which all of its places are free again; a place puts that off by window / quota.
-- Safe to run twice: at worst a call counts twice.
-- KEYS: the shard's root
-- ARGV: now, window ms, then key (without the shard's prefix) and quota of each limit
-- RETURNS: an array for each: 1 there was a place, 0 there was none; places left; ms until all are free again;
--   ms until there is one
--#include _keys

local window = tonumber(ARGV[2])
local FIRST_KEY = 3
local SLACK = 0.01 -- ms: a time leaves a double only so many digits behind the point
local told, passed, free = {}, true, {}
for index = FIRST_KEY, #ARGV, 2 do
  local key, quota = prefix .. ARGV[index], tonumber(ARGV[index + 1])
  local step = window / quota
  local at = math.max(now, tonumber(redis.call('GET', key) or 0))
  at = math.min(at, now + window) -- the clock may have gone back
  local fits = at + step - now <= window + SLACK
  passed = passed and fits
  free[#free + 1] = { key, at, step }
  told[#told + 1] = { fits and 1 or 0, 0, 0, fits and 0 or math.ceil(at + step - window - now - SLACK) }
end
for index, one in ipairs(free) do
  local key, at, step = unpack(one)
  if passed then
    at = at + step
    redis.call('SET', key, string.format('%.3f', at), 'PX', math.max(1, math.ceil(at - now)))
  end
  told[index][2] = math.floor((window - (at - now) + SLACK) / step)
  told[index][3] = math.ceil(at - now)
end
return told
