-- Counters and timings of UTC days: gathered during a call, and written once, by flush_counts. A trigger's
-- field begins with its id, the workspace's with nothing. Needs _keys.lua and _admit.lua.

local counted, timed, appended, totals = {}, {}, {}, {}

local function day_of(slot)
  return math.floor(slot / 86400000)
end

-- Count something for all workspaces together.
local function count_total(what, by)
  totals[what] = (totals[what] or 0) + (by or 1)
end

local function gathered(all, workspace, name, slot, keep_days)
  local day = day_of(slot)
  local key = of(workspace, name .. day)
  local found = all[key]
  if not found then
    found = { expires = (day + 1 + keep_days) * 86400, fields = {} }
    all[key] = found
  end
  return found.fields
end

-- Count something that happened to a slot, on the slot's own day.
local function count(workspace, trigger, slot, what, by)
  local fields = gathered(counted, workspace, 'day:', slot, policy.keep_days)
  local own, total = trigger .. ':' .. what, ':' .. what
  fields[own] = (fields[own] or 0) + (by or 1)
  fields[total] = (fields[total] or 0) + (by or 1)
  count_total(what, by)
end

-- Note an execution's duration and lateness, ms, for a trigger or (with the id '') the workspace. What a person
-- started has no lateness: false.
local function time(workspace, trigger, slot, duration, late)
  local fields = gathered(timed, workspace, 'timings:', slot, policy.keep_timings_days)
  local list = fields[trigger]
  if not list then
    list = {}
    fields[trigger] = list
  end
  list[#list + 1] = { duration, late }
end

-- A workspace's newest slots that were sent wait in `recent`, 14 bytes each: slot in ms (6), duration and
-- lateness in ms (4 each); many at once go into the timings.
local RECENT_SIZE, RECENT_MOST = 14, 500

local function note_recent(workspace, slot, duration, late)
  local parts = appended[workspace]
  if not parts then
    parts = {}
    appended[workspace] = parts
  end
  parts[#parts + 1] = struct.pack('>I6I4I4', slot, duration, late)
end

local function flush_recent()
  for workspace, parts in pairs(appended) do
    local key = of(workspace, 'recent')
    if redis.call('APPEND', key, table.concat(parts)) > RECENT_MOST * RECENT_SIZE then
      local packed = redis.call('GET', key)
      for from = 1, #packed, RECENT_SIZE do
        local slot, duration, late = struct.unpack('>I6I4I4', packed, from)
        time(workspace, '', slot, duration, late)
      end
      redis.call('DEL', key)
    end
  end
end

-- Timings of a day are packed: number, sum, least and most of the durations, sum and most of the latenesses
-- (ms), then two histograms with buckets that grow by a tenth: how many buckets the durations have, and for
-- each bucket its number and count. app/store/history.py reads them.
local HEAD = '>I4dI4I4dI4'
local STEP = math.log(1.1)

local function bucket_of(ms)
  return ms < 1 and 0 or math.min(255, 1 + math.floor(math.log(ms) / STEP))
end

local function unpack_buckets(packed, from, number)
  local buckets = {}
  for _ = 1, number do
    local bucket, times
    bucket, times, from = struct.unpack('>I1I4', packed, from)
    buckets[bucket] = times
  end
  return buckets, from
end

local function pack_buckets(buckets)
  local numbers, parts = {}, {}
  for bucket in pairs(buckets) do
    numbers[#numbers + 1] = bucket
  end
  table.sort(numbers)
  for index, bucket in ipairs(numbers) do
    parts[index] = struct.pack('>I1I4', bucket, buckets[bucket])
  end
  return table.concat(parts), #numbers
end

local function merge_timings(packed, added)
  local number, sum, least, most, late_sum, late_most = 0, 0, math.huge, 0, 0, 0
  local durations, latenesses = {}, {}
  if packed then
    local from, size
    number, sum, least, most, late_sum, late_most, from = struct.unpack(HEAD, packed)
    size, from = struct.unpack('>I1', packed, from)
    durations, from = unpack_buckets(packed, from, size)
    latenesses = unpack_buckets(packed, from, (#packed - from + 1) / 5)
  end
  for _, one in ipairs(added) do
    local duration, late = one[1], one[2]
    number, sum = number + 1, sum + duration
    least, most = math.min(least, duration), math.max(most, duration)
    local bucket = bucket_of(duration)
    durations[bucket] = (durations[bucket] or 0) + 1
    if late then
      late_sum, late_most = late_sum + late, math.max(late_most, late)
      bucket = bucket_of(late)
      latenesses[bucket] = (latenesses[bucket] or 0) + 1
    end
  end
  local first, size = pack_buckets(durations)
  return struct.pack(HEAD, number, sum, least, most, late_sum, late_most) .. struct.pack('>I1', size) .. first
    .. pack_buckets(latenesses)
end

local function flush_counts()
  flush_recent()
  for key, all in pairs(counted) do
    for field, by in pairs(all.fields) do
      if redis.call('HINCRBY', key, field, by) == by then
        redis.call('EXPIREAT', key, all.expires)
      end
    end
  end
  for key, all in pairs(timed) do
    for field, added in pairs(all.fields) do
      local packed = redis.call('HGET', key, field)
      redis.call('HSET', key, field, merge_timings(packed, added))
      if not packed then
        redis.call('EXPIREAT', key, all.expires)
      end
    end
  end
  for what, by in pairs(totals) do
    redis.call('HINCRBY', totals_key, what, by)
  end
  counted, timed, appended, totals = {}, {}, {}, {}
end
