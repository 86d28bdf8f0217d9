-- Settles. ARGV then the ids. Returns how many were ours.

local ids = {}
for i = 4, #ARGV do
  if count_of(ARGV[i]) then ids[#ids + 1] = ARGV[i] end
end
settle(ids)
return #ids
