-- Give a number that no other change has. Safe to run twice: a number may go unused.
-- KEYS: the shard's root
-- ARGV: now
-- RETURNS: the number
--#include _keys

go_on_when_full()
return redis.call('HINCRBY', root, 'serial', 1)
