-- Store a member's heartbeat: the time, the time since which it has held its oldest delivery, its lease.
-- KEYS: members.
-- ARGV: member, milliseconds after which the whole hash expires, milliseconds for which the oldest delivery
-- has been held ('' without one), lease in milliseconds.

local time = now()
local since = ARGV[3] == '' and '' or string.format('%.0f', time - ARGV[3])
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %s %s', time, since, ARGV[4]))
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
