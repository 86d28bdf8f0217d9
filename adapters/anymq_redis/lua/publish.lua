-- Stores a batch. KEYS stream, fence. ARGV number of this call, milliseconds to remember it, '1' to
-- create the stream, then of each record: how many fields, the fields. Returns the ids; in the
-- place of a record that was not stored an error, or nil where the stream is missing.

local last = redis.call('GET', KEYS[2])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[1]) then
  return redis.error_reply('ERR publish ' .. ARGV[1] .. ' was given up')
end

-- First, so that what this user must not do or the server has no memory for fails before anything
-- is stored.
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
local replies, failed = {}, ''
local i = 4
while i <= #ARGV do
  local stop = i + tonumber(ARGV[i])
  local reply
  if ARGV[3] == '1' then
    reply = redis.pcall('XADD', KEYS[1], '*', unpack(ARGV, i + 1, stop))
  else
    reply = redis.pcall('XADD', KEYS[1], 'NOMKSTREAM', '*', unpack(ARGV, i + 1, stop))
  end
  replies[#replies + 1] = reply
  if type(reply) ~= 'string' then failed = failed .. ' ' .. (#replies - 1) end
  i = stop + 1
end
if failed ~= '' then redis.call('SET', KEYS[2], ARGV[1] .. failed, 'PX', ARGV[2]) end
return replies
