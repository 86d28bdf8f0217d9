-- Move due records to their streams. A name that ends in '#' and a number belongs to the stream of that
-- number, any other name to the first.
-- KEYS: delayed, payloads, then the streams. ARGV: the most records.
-- Returns how many were due, and the milliseconds until the next one is (-1 if there is none).

local time = now()
local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', time, 'LIMIT', 0, ARGV[1])
for _, name in ipairs(due) do
  local payload = redis.call('HGET', KEYS[2], name)
  if payload then
    local stream = KEYS[2 + tonumber(string.match(name, '#(%d+)$') or 1)]
    redis.call('XADD', stream, '*', unpack(cmsgpack.unpack(payload)))
    redis.call('HDEL', KEYS[2], name)
  end
  redis.call('ZREM', KEYS[1], name)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return {#due, first[2] and math.max(0, first[2] - time) or -1}
