-- Stores dead letters, and settles those that were stored. KEYS then the letters' streams. ARGV then
-- of each: id, number of the key, '1' to create the stream, how many fields, the fields. Returns for each
-- 1 if it is settled or not ours, else an error, or nil where the stream is missing.

local replies, ids = {}, {}
local i = 4
while i <= #ARGV do
  local id, key, stop = ARGV[i], KEYS[tonumber(ARGV[i + 1])], i + 3 + tonumber(ARGV[i + 3])
  local reply = 1
  if count_of(id) then
    if ARGV[i + 2] == '1' then
      reply = redis.pcall('XADD', key, '*', unpack(ARGV, i + 4, stop))
    else
      reply = redis.pcall('XADD', key, 'NOMKSTREAM', '*', unpack(ARGV, i + 4, stop))
    end
    if type(reply) == 'string' then
      reply = 1
      ids[#ids + 1] = id
    end
  end
  replies[#replies + 1] = reply
  i = stop + 1
end
settle(ids)
return replies
