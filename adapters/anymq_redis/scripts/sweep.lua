-- Delete consumers that have no pending entries and have been idle for long. A consumer that is alive
-- reappears with its next read.
-- KEYS: members, then streams. ARGV: group, milliseconds. Returns how many were deleted.

local time, swept = now(), 0
local members = redis.call('HGETALL', KEYS[1])
for i = 1, #members, 2 do
  if tonumber(string.match(members[i + 1], '^%d+')) < time - ARGV[2] then
    redis.call('HDEL', KEYS[1], members[i])
  end
end
for k = 2, #KEYS do
  local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[k], ARGV[1])
  for _, consumer in ipairs(consumers) do
    local info = {}
    for i = 1, #consumer, 2 do info[consumer[i]] = consumer[i + 1] end
    if info['pending'] == 0 and info['idle'] >= tonumber(ARGV[2]) then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[k], ARGV[1], info['name'])
      swept = swept + 1
    end
  end
end
return swept
