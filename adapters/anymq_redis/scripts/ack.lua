-- Settles. ARGV then the ids. Returns how many were ours.

local ids = owned({unpack(ARGV, 4)})
settle(ids)
return #ids
