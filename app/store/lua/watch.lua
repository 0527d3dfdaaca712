-- Look whether Redis's data and clock are as a process saw them last; note what is not, and go on with the beat.
-- Safe to run twice: the second run finds noted what the first did.
-- KEYS: the shard's root
-- ARGV: now, what the process saw (see _witness.lua)
-- RETURNS: time of the call ms, the verdict (see _witness.lua)
--#include _keys
--#include _witness

local seen = ARGV[2]
go_on_when_full()
return { now, check_witness(seen) }
