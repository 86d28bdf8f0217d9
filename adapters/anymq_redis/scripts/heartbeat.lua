-- Says that a member is there. KEYS members. ARGV member, milliseconds after which all is forgotten, for
-- how many milliseconds it has held what it has held for longest, '' if it holds nothing, its lease.

local time = now()
local since = ARGV[3] == '' and '' or string.format('%.0f', time - ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', time, since, ARGV[4]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
