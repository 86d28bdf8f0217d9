-- Delete all messages of a topic, for every group.
-- KEYS: delayed, payloads, the topic's streams, then for each group its retry stream, delayed and payloads.
-- ARGV: the number of the topic's streams.

local function forget(stream)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then return end
  redis.call('XTRIM', stream, 'MAXLEN', 0)
  for _, info in ipairs(groups) do
    local group = info[2]
    redis.call('XGROUP', 'SETID', stream, group, '$')
    while true do
      local pending = redis.call('XPENDING', stream, group, '-', '+', 1000)
      if #pending == 0 then break end
      local ids = {}
      for i, entry in ipairs(pending) do ids[i] = entry[1] end
      redis.call('XACK', stream, group, unpack(ids))
    end
  end
end

redis.call('DEL', KEYS[1], KEYS[2])
local streams = tonumber(ARGV[1])
for i = 3, 2 + streams do forget(KEYS[i]) end
for i = 3 + streams, #KEYS, 3 do
  forget(KEYS[i])
  redis.call('DEL', KEYS[i + 1], KEYS[i + 2])
end
return 1
