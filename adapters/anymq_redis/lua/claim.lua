-- Takes over entries whose lease has ended. KEYS stream. ARGV group, consumer, '', least idle
-- time, where to go on, how many. Returns where to go on next, then {id, fields, count} of each, then
-- how many had been deleted while pending.

local reply = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[4], ARGV[5], 'COUNT', ARGV[6])
local taken = {}
for i = 1, #reply[2] do
  local entry = reply[2][i]
  if entry then -- Redis 6.2 has nil for a deleted one, 7 lists it apart (redis #10198)
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)[1]
    taken[#taken + 1] = {entry[1], entry[2], pending[4]}
  end
end
return {reply[1], taken, reply[3] and #reply[3] or 0}
