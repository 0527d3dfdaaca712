-- Note spans in which triggers were disabled; they end now. Safe to run twice.
-- KEYS: the shard's root
-- ARGV: now, policy, workspace, spans as one msgpack array of {trigger, since ms}
-- RETURNS: nothing of use
--#include _keys
--#include _admit
--#include _count
--#include _line
--#include _requests
--#include _end

use_policy(ARGV[2])
local workspace, spans = ARGV[3], cmsgpack.unpack(ARGV[4])
for _, span in ipairs(spans) do
  local trigger, since = unpack(span)
  local runs = try_unpack(redis.call('HGET', of(workspace, 'exceptions'), trigger)) or {}
  local newest = runs[#runs]
  if not newest or newest[4] ~= 'disabled' or newest[1] ~= since then
    note_run(workspace, trigger, since, now, 0, 'disabled', '', false)
  end
end
return 0
