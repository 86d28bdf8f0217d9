-- Settle entries and store a copy of each, in the retry stream or among the delayed copies.
-- KEYS: as in _owned.lua, with retry, delayed and payloads.
-- ARGV: as in _owned.lua, then for each entry: id, delay in milliseconds, number of fields, fields of the
-- copy. Returns how many were pending for this consumer.

local ids = {}
local i = 4
while i <= #ARGV do
  local id, delay, stop = ARGV[i], tonumber(ARGV[i + 1]), i + 2 + tonumber(ARGV[i + 2])
  if count_of(id) then
    if delay == 0 then
      redis.call('XADD', KEYS[2], '*', unpack(ARGV, i + 3, stop))
    else
      -- Unique among delayed copies, because an entry is settled once.
      local name = ARGV[3] .. ':' .. id
      redis.call('HSET', KEYS[4], name, cmsgpack.pack({unpack(ARGV, i + 3, stop)}))
      redis.call('ZADD', KEYS[3], now() + delay + 1, name)
    end
    ids[#ids + 1] = id
  end
  i = stop + 1
end
settle(ids)
return #ids
