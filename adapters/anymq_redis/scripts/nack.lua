-- Settles, and puts back a copy. KEYS then retry, delayed, payloads. ARGV then of each: id, delay
-- in milliseconds, how many fields, the fields of the copy.

local ids = {}
local i = 4
while i <= #ARGV do
  local id, delay, stop = ARGV[i], tonumber(ARGV[i + 1]), i + 2 + tonumber(ARGV[i + 2])
  if count_of(id) then
    if delay == 0 then
      redis.call('XADD', KEYS[2], '*', unpack(ARGV, i + 3, stop))
    else
      -- Unique among what waits: an entry is settled once.
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
