-- Look up a topic, and optionally create it.
-- KEYS: stream, about.
-- ARGV: the wanted number of partitions or '', '1' to create the topic, retention in milliseconds or '',
-- retention in bytes or ''.
-- Returns the number of partitions, the type of the stream's key, and 1 if the topic exists.

local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'stream' and kind ~= 'none' then return {1, kind, 1} end
local count = redis.call('HGET', KEYS[2], 'partitions')
local exists = count or kind == 'stream'
if not count then
  count = (exists or ARGV[1] == '') and '1' or ARGV[1]
  if ARGV[2] == '1' then
    redis.call('HSET', KEYS[2], 'partitions', count)
    exists = true
  end
end
if ARGV[2] == '1' and (ARGV[1] == '' or ARGV[1] == count) then
  for i, name in ipairs({'retention', 'bytes'}) do
    local value = ARGV[2 + i]
    if value ~= '' and redis.call('HGET', KEYS[2], name) ~= value then
      redis.call('HSET', KEYS[2], name, value)
    end
  end
end
return {tonumber(count), kind, exists and 1 or 0}
