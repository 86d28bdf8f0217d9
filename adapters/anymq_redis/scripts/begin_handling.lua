-- Store the number of handlers that have started with each entry.
-- ARGV: as in _owned.lua, then for each entry: id, number.

for i = 4, #ARGV, 2 do
  if count_of(ARGV[i]) then redis.call('HSET', KEYS[#KEYS], ARGV[3] .. ':' .. ARGV[i], ARGV[i + 1]) end
end
return 1
