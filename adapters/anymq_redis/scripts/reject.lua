-- Store dead letters, and settle the entries whose letters were stored.
-- KEYS: as in _owned.lua, with the letters' streams.
-- ARGV: as in _owned.lua, then for each entry: id, number of its letter's key, '1' to create that stream,
-- number of fields, fields.
-- Returns for each entry 1 if it is settled or not pending for this consumer, an error, or nil if the
-- letter's stream does not exist.

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
