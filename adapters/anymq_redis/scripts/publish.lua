-- Store a batch of records.
-- KEYS: fence, about, delayed, payloads, then the topic's streams.
-- ARGV: number of this call, milliseconds to keep the fence, '1' to create the topic, its number of
-- partitions, then for each record: number of its stream, delay in milliseconds, number of fields, fields.
-- Returns for each record its id, '' if it is delayed, an error if it was not stored, or nil if the topic
-- does not exist or has another number of partitions.

local last = redis.call('GET', KEYS[1])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[1]) then
  return redis.error_reply('ERR publish ' .. ARGV[1] .. ' was given up')
end

-- The fence is written first, so missing permissions and missing memory fail before a record is stored.
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
local count = redis.call('HGET', KEYS[2], 'partitions')
local there = (count or '1') == ARGV[4]
  and (count or ARGV[3] == '1' or redis.call('EXISTS', KEYS[5]) == 1)

local function wait(stream, delay, fields)
  -- Names with the same due time keep the order of their publishes.
  local number = redis.call('HINCRBY', KEYS[4], '', 1)
  local name = string.format('%016.0f#%s', number, stream)
  redis.call('HSET', KEYS[4], name, cmsgpack.pack(fields))
  redis.call('ZADD', KEYS[3], now() + delay + 1, name)
  return ''
end

local replies, failed = {}, ''
local i = 5
while i <= #ARGV do
  local delay, stop = tonumber(ARGV[i + 1]), i + 2 + tonumber(ARGV[i + 2])
  local reply = false
  if there and delay > 0 then
    local done, result = pcall(wait, ARGV[i], delay, {unpack(ARGV, i + 3, stop)})
    reply = (done or result.err) and result or redis.error_reply(result)
  elseif there then
    reply = redis.pcall('XADD', KEYS[4 + ARGV[i]], '*', unpack(ARGV, i + 3, stop))
  end
  replies[#replies + 1] = reply
  if type(reply) ~= 'string' then failed = failed .. ' ' .. (#replies - 1) end
  i = stop + 1
end
if failed ~= '' then redis.call('SET', KEYS[1], ARGV[1] .. failed, 'PX', ARGV[2]) end
return replies
