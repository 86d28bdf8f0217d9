-- Settle entries and add them unchanged to the retry stream, with their known starts. No payload travels
-- to the client and back.
-- KEYS: as in _owned.lua, with the retry stream. ARGV: as in _owned.lua, then the ids.
-- Returns how many were pending for this consumer.

local ids = {}
for i = 4, #ARGV do
  local id = ARGV[i]
  if count_of(id) then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      local position, earlier, copy = ARGV[3] == '1' and id or ARGV[3] .. id, 0, {}
      for f = 1, #entry[2], 2 do
        local name, value = entry[2][f], entry[2][f + 1]
        if ARGV[3] == '1' and name == 'anymq-position' then
          position = value
        elseif ARGV[3] == '1' and name == 'anymq-redelivered' then
          earlier = tonumber(value)
        else
          copy[#copy + 1] = name
          copy[#copy + 1] = value
        end
      end
      redis.call('XADD', KEYS[2], '*', 'anymq-position', position,
        'anymq-redelivered', earlier + starts_of(id), unpack(copy))
    end
    ids[#ids + 1] = id
  end
end
settle(ids)
return #ids
