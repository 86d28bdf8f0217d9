-- Moves copies that are due. KEYS retry, delayed, payloads. ARGV how many at most. Returns how many
-- were due, and the milliseconds until the next one is, -1 if there is none.

local time = now()
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', time, 'LIMIT', 0, ARGV[1])
for _, name in ipairs(due) do
  local payload = redis.call('HGET', KEYS[3], name)
  if payload then
    redis.call('XADD', KEYS[1], '*', unpack(cmsgpack.unpack(payload)))
    redis.call('HDEL', KEYS[3], name)
  end
  redis.call('ZREM', KEYS[2], name)
end
local first = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')
return {#due, first[2] and math.max(0, first[2] - time) or -1}
