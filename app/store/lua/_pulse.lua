-- The pulse: when a worker last called; each does at least every third of a lease. A gap in it means that nobody could renew a lease (Redis was away, or
-- every worker was), so takeover waits for one lease, in which the living report first. Needs _keys.lua.
-- Returns the time from which takeover is allowed, ms.
local function note_pulse(lease)
  local known = redis.call('HMGET', root, 'pulse', 'takeover_after')
  local takeover_after = tonumber(known[2] or 0)
  if known[1] and math.abs(now - tonumber(known[1])) > lease / 2 then
    takeover_after = now + lease
    redis.call('HSET', root, 'takeover_after', whole(takeover_after))
  end
  redis.call('HSET', root, 'pulse', whole(now))
  return math.min(takeover_after, now + lease) -- the clock may have gone back
end
