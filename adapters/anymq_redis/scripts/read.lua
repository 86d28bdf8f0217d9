-- Read new entries of several streams, with one limit for all.
-- KEYS: streams. ARGV: group, consumer, the most entries. Returns as XREADGROUP does.

local found, left = {}, tonumber(ARGV[3])
for _, stream in ipairs(KEYS) do
  if left <= 0 then break end
  local reply = redis.call('XREADGROUP', 'GROUP', ARGV[1], ARGV[2], 'COUNT', left, 'STREAMS', stream, '>')
  if reply then
    found[#found + 1] = reply[1]
    left = left - #reply[1][2]
  end
end
return found
