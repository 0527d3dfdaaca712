-- Note spans in which no slot of triggers was due; they end now. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, spans as one msgpack array of {trigger, since ms, what}
-- RETURNS: nothing of use
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _end

use_policy(ARGV[2])
local workspace, spans = ARGV[3], cmsgpack.unpack(ARGV[4])
for _, span in ipairs(spans) do
  local trigger, since, what = unpack(span)
  local runs = try_unpack(redis.call('HGET', of(workspace, 'exceptions'), trigger)) or {}
  local newest = runs[#runs]
  if not newest or newest[4] ~= what or newest[1] ~= since then
    note_run(workspace, trigger, since, now, 0, what, '', false)
  end
end
return 0
