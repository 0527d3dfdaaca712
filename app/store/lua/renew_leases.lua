-- Extend the leases of what a worker still sends.
-- Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, lease ms, then for each execution: id, token
-- RETURNS: the ids that are no longer held by their token
--#include _keys
--#include _pulse

local lease = tonumber(ARGV[2])
go_on_when_full()
note_pulse(lease)
local lease_end = whole(now + lease)
local lost = {}
for index = 3, #ARGV, 2 do
  local id, token = ARGV[index], ARGV[index + 1]
  local owner = redis.call('GET', owner_key(id))
  if owner and string.sub(owner, 1, #token + 1) == token .. '|' then
    redis.call('ZADD', queue_key, 'XX', lease_end, tag .. id)
  else
    lost[#lost + 1] = id
  end
end
return lost
