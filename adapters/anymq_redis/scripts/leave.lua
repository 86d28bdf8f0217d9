-- Delete a consumer, unless it has pending entries, which would be lost with it.
-- KEYS: stream, members. ARGV: group, consumer.

redis.call('HDEL', KEYS[2], ARGV[2])
local pending = redis.pcall('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if pending.err or pending[1] then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
