-- Go on firing: what was lost is accepted, and so is the time that Redis's clock shows.
-- A new epoch and a new term begin, so that every process starts afresh with what it finds.
-- Safe to run twice: with the same token it does nothing again.
-- KEYS: the shard's root
-- ARGV: now, token
-- RETURNS: 'clock' if that was held (or this is a second run), 'loss' if that only, 'nothing'
--#include _keys
--#include _witness

local token = ARGV[2]
local known = redis.call('HMGET', root, 'held_by_loss', 'held_by_clock', 'epoch', 'resumed')
if known[4] == token then
  return 'clock'
elseif not known[1] and not known[2] then
  return 'nothing'
end
go_on_when_full()
redis.call('HDEL', root, 'held_by_loss', 'held_by_clock', 'takeover_after')
local fresh = whole(now) .. '-' .. token
if known[3] then
  end_epochs(known[3])
end
redis.call('HSET', root, 'resumed', token, 'epoch', fresh, 'pulse', whole(now))
redis.call('HINCRBY', root, 'term', 1)
redis.call('DEL', beats_key) -- their times may be of another clock
make_beat(fresh)
local kept = {}
for _, loss in ipairs(losses()) do
  if loss[4] <= now then -- to a clock that was set back the others are still to come
    kept[#kept + 1] = loss
  end
end
keep_losses(kept)
redis.call('PUBLISH', wake_channel, 'replaced')
return known[2] and 'clock' or 'loss'
