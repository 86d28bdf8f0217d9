-- Renew the lease of a claim in the idempotency store.
-- KEYS: the claim. ARGV: owner, lease in milliseconds. Returns 0 if the owner does not hold the claim.

if redis.call('GET', KEYS[1]) ~= '+' .. ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
