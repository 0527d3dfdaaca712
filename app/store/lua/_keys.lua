-- The keys of the shard (see app/keys.py) and small helpers. Every script begins with this fragment:
-- KEYS[1] is the shard's root hash, ARGV[1] the time in ms, empty for the server's own clock.

local root = KEYS[1]
local prefix = string.sub(root, 1, -6) -- without 'shard'
local tag = string.match(prefix, '{.-}') .. ':'
local due_key = prefix .. 'due'
local queue_key = prefix .. 'queue'
local late_key = prefix .. 'late'
local paced_key = prefix .. 'paced'
local hosts_key = prefix .. 'hosts'
local refills_key = prefix .. 'refills'
local clears_key = prefix .. 'clears'
local trims_key = prefix .. 'trims'
local erases_key = prefix .. 'erases'
local outgoing_key = prefix .. 'outgoing'
local totals_key = prefix .. 'totals'
local workers_key = prefix .. 'workers'
local worker_facts_key = prefix .. 'worker-facts'
local seats_key = prefix .. 'seats'
local wake_channel = prefix .. 'wake'

local function of(workspace, name)
  return prefix .. 'w:' .. workspace .. ':' .. name
end

local function job_key(id)
  return 'arq:job:' .. tag .. id
end

local function owner_key(id)
  return 'arq:in-progress:' .. tag .. id
end

local function result_key(id)
  return 'arq:result:' .. tag .. id
end

-- Numbers of ms as text: Lua's own conversion keeps 14 digits only.
local function whole(number)
  return string.format('%.0f', number)
end

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Under maxmemory Redis refuses a script at its first write if that needs memory. What frees memory in the
-- end, or keeps the queue going, begins with a removal, even of nothing.
local function go_on_when_full()
  redis.call('DEL', root .. ':none')
end

-- An execution id is workspace:trigger:slot, and for what a person started the slot ends in .kind-number.
local function split_id(id)
  local workspace, trigger, slot, own = string.match(id, '^([^:]+):([^:]+):(%d+)(.*)$')
  return workspace, trigger, tonumber(slot), own ~= '' and own or nil
end

-- A trigger's state is an array: born, version, position, after, rules, notes, then the held slots.
--   born      serial of the change that created the trigger: who removes and recreates one makes another
--   version   serial of the change that last altered its definition
--   position  its place in the set as declared
--   after     where the next refill starts when no slot is held: the last slot that fired, ms
--   rules     what the scripts need of its definition, a map; false where everything is usual:
--             overlap, queue (limit), deadline (ms), jitter (ms), max_runs, once (at most once)
--   notes     what happened to it, a map; false: nothing: runs (made, where they are bounded), anchor (ms,
--             of an interval), caught (slots up to here are sent however late), behind (true while it fires
--             slots of which several were due at once: they go one after another), sealed (since when there
--             was no key to compute its slots with, ms)
local BORN, VERSION, POSITION, AFTER, RULES, NOTES, HELD = 1, 2, 3, 4, 5, 6, 7

local function drop_held(state)
  for index = #state, HELD, -1 do
    state[index] = nil
  end
end

-- An unpacked job or state; nil for what is missing or none of ours.
local function try_unpack(packed)
  local fine, value = pcall(cmsgpack.unpack, packed or '')
  return fine and type(value) == 'table' and value or nil
end

-- Whether a slot lies in a span in which nothing was due: an array of {paused ms, resumed ms}.
local function in_span(spans, slot)
  for _, span in ipairs(spans or {}) do
    if slot > span[1] and slot <= span[2] then
      return true
    end
  end
  return false
end

-- Whether a workspace has slots up to now that are still to be fired or judged.
local function has_unsettled(workspace)
  local dry, errors = of(workspace, 'dry'), of(workspace, 'errors')
  if redis.call('ZCOUNT', of(workspace, 'due'), '-inf', whole(now)) > 0
    or redis.call('SCARD', dry) > redis.call('HLEN', errors) then
    return true
  end
  for _, trigger in ipairs(redis.call('SMEMBERS', dry)) do -- there may be errors of others
    if redis.call('HEXISTS', errors, trigger) == 0 then
      return true
    end
  end
  return false
end

-- Set a workspace's place in the shard's due index to its earliest slot; a paused one has none.
local function index_workspace(workspace)
  local first = redis.call('ZRANGE', of(workspace, 'due'), 0, 0, 'WITHSCORES')
  if first[2] and redis.call('HEXISTS', of(workspace, 'meta'), 'paused') == 0 then
    redis.call('ZADD', due_key, first[2], workspace)
  else
    redis.call('ZREM', due_key, workspace)
  end
end
