-- Acknowledge entries.
-- ARGV: as in _owned.lua, then the ids. Returns how many were pending for this consumer.

local ids = owned({unpack(ARGV, 4)})
settle(ids)
return #ids
