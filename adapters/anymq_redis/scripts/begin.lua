-- Claims a key of the idempotency store: its value is '=' when done, else '+' and the owner. ARGV
-- owner, milliseconds. Returns -2 if it is claimed now, -1 if done, else the milliseconds that are left
-- to the other owner.

local value = redis.call('GET', KEYS[1])
if value == '=' then return -1 end
if value and value ~= '+' .. ARGV[1] then return math.max(0, redis.call('PTTL', KEYS[1])) end
redis.call('SET', KEYS[1], '+' .. ARGV[1], 'PX', ARGV[2])
return -2
