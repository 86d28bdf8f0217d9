-- Claim a key in the idempotency store. Its value is '=' when completed, otherwise '+' and the owner.
-- KEYS: the key. ARGV: owner, lease in milliseconds.
-- Returns -2 if the key is claimed now, -1 if it is completed, otherwise the milliseconds that remain of
-- another owner's lease.

local value = redis.call('GET', KEYS[1])
if value == '=' then return -1 end
if value and value ~= '+' .. ARGV[1] then return math.max(0, redis.call('PTTL', KEYS[1])) end
redis.call('SET', KEYS[1], '+' .. ARGV[1], 'PX', ARGV[2])
return -2
