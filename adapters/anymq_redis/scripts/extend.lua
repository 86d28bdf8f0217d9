-- Renew leases.
-- ARGV: as in _owned.lua, then the ids. Returns the ids that are not pending for this consumer.

local ids, lost = {}, {}
for i = 4, #ARGV do
  local list = count_of(ARGV[i]) and ids or lost
  list[#list + 1] = ARGV[i]
end
for i = 1, #ids, 1000 do
  local stop = math.min(i + 999, #ids)
  local args = {unpack(ids, i, stop)}
  args[#args + 1] = 'JUSTID'
  redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, unpack(args))
end
return lost
