-- Renew a worker's places at target hosts, give up those that it needs no more, and call who waits for one.
-- Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, worker, places of a host, lease ms, renewed as one msgpack array of {id, host}, given up in
--       the same way, whether all hosts are looked at that somebody waits for (1 or 0): places may have lapsed
-- RETURNS: 1
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _end
--#include _host

use_policy(ARGV[2])
local worker, most, lease = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local renewed, left, looks_at_all = cmsgpack.unpack(ARGV[6]), cmsgpack.unpack(ARGV[7]), ARGV[8] == '1'

go_on_when_full()
for _, one in ipairs(renewed) do
  hold_at(one[2], worker .. '|' .. one[1], lease)
end
local seen = {}
for _, one in ipairs(left) do
  redis.call('ZREM', host_key(one[2]), worker .. '|' .. one[1])
  seen[one[2]] = true
end
if looks_at_all then
  for _, host in ipairs(redis.call('SMEMBERS', hosts_key)) do
    seen[host] = true
  end
end
for host in pairs(seen) do
  call_waiting(host, most, lease)
end
settle_call()
return 1
