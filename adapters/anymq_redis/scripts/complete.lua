-- Marks a key of the idempotency store as done. ARGV owner, milliseconds to remember it.

if redis.call('GET', KEYS[1]) ~= '+' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '=', 'PX', ARGV[2])
return 1
