-- Mark a key of the idempotency store as completed.
-- KEYS: the key. ARGV: owner, milliseconds to keep it. Returns 1, or 0 if the owner does not hold the key.

if redis.call('GET', KEYS[1]) ~= '+' .. ARGV[1] then return 0 end
redis.call('SET', KEYS[1], '=', 'PX', ARGV[2])
return 1
