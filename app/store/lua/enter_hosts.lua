-- Give executions that a worker has claimed a place at their target hosts. Those for which there is none go back:
-- they wait for one, in the order of their slots, without a place of a worker or of their workspace.
-- Safe to run twice: who has a place keeps it.
-- KEYS: the shard's root
-- ARGV: now, policy, worker, places of a host, lease ms, executions as one msgpack array of {id, token, host}
-- RETURNS: for each 1 (it has a place) or 0 (it waits, or is not held by the token any more)
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end
--#include _host

use_policy(ARGV[2])
local worker, most, lease = ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local executions = cmsgpack.unpack(ARGV[6])

go_on_when_full()
for _, execution in ipairs(executions) do
  redis.call('ZREM', host_line_key(execution[3]), execution[1])
end

local seen = {}

local function enter(id, token, host)
  local owner = redis.call('GET', owner_key(id))
  if not owner or string.sub(owner, 1, #token + 1) ~= token .. '|' then
    return 0
  end
  if not seen[host] then
    seen[host] = { others_first = call_waiting(host, most, lease) }
  end
  local own = worker .. '|' .. id
  local has_one = redis.call('ZREM', host_key(host), '|' .. id) == 1 or redis.call('ZSCORE', host_key(host), own)
  if has_one or not seen[host].others_first and taken_at(host, lease) < most then
    hold_at(host, own, lease)
    return 1
  end
  wait_at(host, id)
  return 0
end

local reply = {}
for index, execution in ipairs(executions) do
  reply[index] = enter(unpack(execution))
end
settle_call()
return reply
