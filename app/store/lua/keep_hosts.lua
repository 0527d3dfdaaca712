-- Renew a worker's places at target hosts, give up those that it needs no more, and call who waits for one.
-- Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, worker, places of a host, lease ms, renewed as one msgpack array of {id, host}, given up in
--       the same way, whether hosts are looked at that somebody waits for (1 or 0): places may have lapsed
-- RETURNS: 1 call again soon, somebody is left who could be called; 0
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end
--#include _host

use_policy(ARGV[2])
local worker, most, lease = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local renewed, left, looks_at_more = cmsgpack.unpack(ARGV[6]), cmsgpack.unpack(ARGV[7]), ARGV[8] == '1'

go_on_when_full()
for _, one in ipairs(renewed) do
  hold_at(one[2], worker .. '|' .. one[1], lease)
end
local seen = {}
for _, one in ipairs(left) do
  redis.call('ZREM', host_key(one[2]), worker .. '|' .. one[1])
  seen[one[2]] = true
end
if looks_at_more then
  for _, host in ipairs(redis.call('SRANDMEMBER', hosts_key, LOOKS)) do
    seen[host] = true
  end
end
local is_left = false
for host in pairs(seen) do
  is_left = call_waiting(host, most, lease) or is_left
end
settle_call()
return is_left and 1 or 0
