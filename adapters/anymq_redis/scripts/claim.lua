-- Claim entries whose lease has expired. The lease is the one in its owner's heartbeat; without a
-- heartbeat it is the lease of the calling consumer.
-- KEYS: stream, members, starts.
-- ARGV: group, consumer, kind of the stream (_owned.lua), the caller's lease in milliseconds, the id to
-- continue at, the most entries.
-- Returns the id to continue at next, then {id, fields, count, starts} of each claimed entry, then how many
-- pending entries had been deleted from the stream.

local leases, least = {}, tonumber(ARGV[4])
local members = redis.call('HGETALL', KEYS[2])
for i = 1, #members, 2 do
  local lease = tonumber(string.match(members[i + 1], '^%d+ %d* (%d+)$'))
  if lease then
    leases[members[i]] = lease
    least = math.min(least, lease)
  end
end

local most = tonumber(ARGV[6])
local pending = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', least, ARGV[5], '+', most)
local taken, deleted = {}, 0
for _, entry in ipairs(pending) do
  local id, owner, idle, count = entry[1], entry[2], entry[3], entry[4]
  local lease = leases[owner] or tonumber(ARGV[4])
  if idle >= lease then
    local claimed = redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], lease, id)[1]
    -- For a deleted entry Redis 6.2 returns nil and keeps it pending; Redis 7 omits and forgets it.
    if claimed then
      local starts = redis.call('HGET', KEYS[3], ARGV[3] .. ':' .. id)
      taken[#taken + 1] = {id, claimed[2], count + 1, tonumber(starts or 0)}
    else
      redis.call('XACK', KEYS[1], ARGV[1], id)
      deleted = deleted + 1
    end
  end
end
return {#pending == most and '(' .. pending[most][1] or '0-0', taken, deleted}
