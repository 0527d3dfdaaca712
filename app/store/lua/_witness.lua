-- The witness: a process tells with its call what it saw last of this shard, and the call goes on only if that
-- fits (see app/witness.py). Needs _keys.lua.
-- In the root hash: epoch (of the data), beat (the last one), term (how often a clock was accepted), former
-- (epochs that ended, known to all), losses (what was lost, see Loss in app/witness.py), and what holds firing:
-- held_by_loss {since ms, who, from ms, to ms}, held_by_clock {since ms, who, jump ms, known good until ms}.
-- An epoch and a beat are a time and the process that made it: ms-token.

local BEAT_MS, BEATS_KEPT = 1000, 600
-- How long a process may have heard nothing of what others did: one that rests looks, and writes down what it saw,
-- every five seconds (workers/duty.py, app/store/memory.py); twice that, because a host may be slow.
local UNHEARD_MS = 10000
local LOSSES_KEPT, FORMER_KEPT = 20, 50
local beats_key = prefix .. 'beats'

local lost_spans

-- What Redis lost, as an array of {epoch, from ms, to ms, noticed ms, who, held}.
local function losses()
  lost_spans = lost_spans or try_unpack(redis.call('HGET', root, 'losses')) or {}
  return lost_spans
end

-- Whether a slot that is still to be fired may have been, in what was lost: also one from before that, if it came late.
local function may_have_fired(slot)
  for _, loss in ipairs(losses()) do
    if slot <= loss[3] then
      return true
    end
  end
  return false
end

-- Whether what was made at a time and is open was open before a loss, too: it may have been sent in what was lost.
local function outlived_loss(made)
  for _, loss in ipairs(losses()) do
    if made < loss[4] then
      return true
    end
  end
  return false
end

local function keep_losses(kept)
  while #kept > LOSSES_KEPT do
    table.remove(kept, 1)
  end
  lost_spans = kept
  redis.call('HSET', root, 'losses', cmsgpack.pack(kept))
end

-- Epochs have ended: who saw them last has lost nothing that is not known.
local function end_epochs(...)
  local former = try_unpack(redis.call('HGET', root, 'former')) or {}
  for _, epoch in ipairs({ ... }) do
    former[#former + 1] = epoch
  end
  while #former > FORMER_KEPT do
    table.remove(former, 1)
  end
  redis.call('HSET', root, 'former', cmsgpack.pack(former))
end

-- How far what was lost may reach, by a process that heard last at a time: others may have gone on after that, but
-- not beyond the moment in which the loss was noticed.
local function reach(at, noticed)
  return math.max(at, math.min(noticed, at + UNHEARD_MS))
end

local function time_of(beat)
  return tonumber(string.match(beat, '^%d+'))
end

local function make_beat(id)
  redis.call('HSET', root, 'beat', id)
  redis.call('ZADD', beats_key, time_of(id), id)
  redis.call('ZREMRANGEBYRANK', beats_key, 0, -(BEATS_KEPT + 1))
end

-- What was lost since a process saw a beat that is not the last one: {from ms, to ms}, or nil.
local function find_loss(epoch, beat, at, known_epoch)
  if redis.call('ZSCORE', beats_key, beat) then
    return nil
  end
  for _, one in ipairs(try_unpack(redis.call('HGET', root, 'former')) or {}) do
    if one == epoch then -- that is known, but perhaps not how far it went
      local kept = losses()
      for _, loss in ipairs(kept) do
        if loss[1] == epoch and loss[3] < reach(at, loss[4]) then
          loss[3] = reach(at, loss[4])
          keep_losses(kept)
        end
      end
      return nil
    end
  end
  local oldest = redis.call('ZRANGE', beats_key, 0, 0, 'WITHSCORES')[2]
  if epoch == known_epoch and redis.call('ZCARD', beats_key) >= BEATS_KEPT and time_of(beat) < tonumber(oldest) then
    return nil -- seen too long ago to tell
  end
  local before = redis.call('ZREVRANGEBYSCORE', beats_key, '(' .. time_of(beat), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
  return { tonumber(before[2] or 0), reach(at, now) }
end

-- Whether Redis's clock is in order, as far as the process can tell: '' or 'clock_jump', whether by its own
-- evidence (1 or 0), and the term.
local function check_clock(at, expected, since, term, max_jump, who, known_term, held)
  local knows = expected > 0 and term == known_term
  if max_jump == 0 then
    return '', 0, known_term
  elseif knows and math.abs(now - expected) > max_jump then
    if not held then
      local good_until = now - math.max(0, expected - at)
      redis.call('HSET', root, 'held_by_clock', cmsgpack.pack({ now, who, now - expected, good_until }))
    end
    return 'clock_jump', 1, known_term
  elseif held then
    if not knows or since >= cmsgpack.unpack(held)[4] then
      return 'clock_jump', 0, known_term
    end
    redis.call('HDEL', root, 'held_by_clock')
    known_term = redis.call('HINCRBY', root, 'term', 1) -- whose clock says otherwise goes by this one from here on
  end
  return '', 0, known_term
end

-- Hold what a process saw (Seen in app/witness.py, packed) against what there is. Returns the verdict: why
-- firing is held ('' for not), whether by the process's own evidence (1 or 0), epoch, beat, term, and the loss
-- that was noticed (packed; '' for none).
local function check_witness(seen)
  local epoch, beat, at, expected, since, term, who, token, tolerance, max_jump, holds = unpack(cmsgpack.unpack(seen))
  local known = redis.call('HMGET', root, 'epoch', 'beat', 'term', 'held_by_clock', 'held_by_loss')
  local why, own
  why, own, term = check_clock(at, expected, since, term, max_jump, who, tonumber(known[3] or 0), known[4])
  if why ~= '' then
    return { why, own, '', '', term, '' }
  end
  local known_epoch, known_beat, is_held = known[1], known[2], known[5]
  local loss = beat ~= '' and beat ~= known_beat and find_loss(epoch, beat, at, known_epoch)
  local told = ''
  local fresh = whole(now) .. '-' .. token
  if loss then
    local from, to = unpack(loss)
    local hold = holds and (from == 0 or at - from > tolerance)
    local kept = losses()
    kept[#kept + 1] = { epoch, from, to, now, who, hold }
    keep_losses(kept)
    told = cmsgpack.pack(kept[#kept])
    end_epochs(epoch, known_epoch or nil)
    if hold then
      is_held = cmsgpack.pack({ now, who, from, to })
      redis.call('HSET', root, 'held_by_loss', is_held)
    end
  end
  if loss or not known_epoch then
    known_epoch = fresh
    redis.call('HSET', root, 'epoch', known_epoch)
  end
  if loss or not known_beat or math.abs(now - time_of(known_beat)) >= BEAT_MS then
    known_beat = fresh
    make_beat(known_beat)
  end
  return { is_held and holds and 'data_loss' or '', loss and 1 or 0, known_epoch, known_beat, term, told }
end
