-- Abandon a claim in the idempotency store.
-- KEYS: the claim. ARGV: owner. Returns 1, or 0 if the owner does not hold the claim.

if redis.call('GET', KEYS[1]) ~= '+' .. ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
