-- Notes that handlers begin. ARGV then of each: id, how many will have begun with it then.

for i = 4, #ARGV, 2 do
  if count_of(ARGV[i]) then redis.call('HSET', KEYS[#KEYS], ARGV[3] .. ':' .. ARGV[i], ARGV[i + 1]) end
end
return 1
