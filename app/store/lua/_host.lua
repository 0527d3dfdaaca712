-- Places at target hosts. `host:H` holds who has one until when: worker|execution, and |execution of one that was
-- called and that no worker has claimed yet. `hostline:H` holds who waits for one. What waits is in `waiting` and
-- holds no place of its workspace. Needs _end.lua and what that needs.

local ASKS_AGAIN = 60000 -- ms: who waits is claimed then whether it was called or not

local function host_key(host)
  return prefix .. 'host:' .. host
end

local function host_line_key(host)
  return prefix .. 'hostline:' .. host
end

-- How many places of a host are taken. What has lapsed was a lost worker's; what lasts too long is from before
-- the clock went back.
local function taken_at(host, lease)
  redis.call('ZREMRANGEBYSCORE', host_key(host), '-inf', whole(now))
  redis.call('ZREMRANGEBYSCORE', host_key(host), '(' .. whole(now + 2 * lease), '+inf')
  return redis.call('ZCARD', host_key(host))
end

local function hold_at(host, member, lease)
  redis.call('ZADD', host_key(host), whole(now + lease), member)
  redis.call('PEXPIRE', host_key(host), lease)
end

-- Have an execution that was claimed wait for a place at its host.
local function wait_at(host, id)
  local workspace, _, slot = split_id(id)
  redis.call('DEL', owner_key(id))
  return_place(workspace, id)
  freed[workspace] = true
  redis.call('ZADD', of(workspace, 'waiting'), whole(now), id)
  redis.call('ZADD', queue_key, whole(now + ASKS_AGAIN), tag .. id)
  redis.call('ZADD', host_line_key(host), whole(slot), id)
  redis.call('SADD', hosts_key, host)
  redis.call('PEXPIRE', host_line_key(host), 2 * ASKS_AGAIN)
  redis.call('PEXPIRE', hosts_key, 2 * ASKS_AGAIN)
end

-- How much of lines one call of a script looks at: who has no place in its workspace is passed over, and a
-- workspace may have any number of those.
local LOOKS = 500
local looks = LOOKS

-- Whether an execution waits for a host, as `wait_at` left it. One whose trigger has another URL by now may have been
-- sent there since, and wait for its next attempt: that has its own time.
local function waits_at_host(workspace, id)
  local since = redis.call('ZSCORE', of(workspace, 'waiting'), id)
  local asks = redis.call('ZSCORE', queue_key, tag .. id)
  return since and asks and tonumber(asks) - tonumber(since) == ASKS_AGAIN
end

-- Call who waits for a host into its free places, oldest slot first. Who has no place in its workspace waits
-- there. Returns whether somebody may be left who could have been called.
local function call_waiting(host, most, lease)
  looks = looks - 1
  local free, called = most - taken_at(host, lease), 0
  while called < free and looks > 0 do
    looks = looks - 1
    local id = redis.call('ZPOPMIN', host_line_key(host))[1]
    if not id then
      redis.call('SREM', hosts_key, host)
      break
    end
    local workspace, _, slot = split_id(id)
    local job = try_unpack(redis.call('GET', job_key(id)))
    if job and waits_at_host(workspace, id) then
      redis.call('ZREM', of(workspace, 'waiting'), id)
      if has_place(workspace) then
        admit(workspace, id, whole(now))
        hold_at(host, '|' .. id, lease)
        called = called + 1
      else
        redis.call('ZREM', queue_key, tag .. id)
        place(workspace, id, job.a, slot)
      end
    end
  end
  if called > 0 then
    redis.call('PUBLISH', wake_channel, 'called')
  end
  return called < free and redis.call('EXISTS', host_line_key(host)) == 1
end
