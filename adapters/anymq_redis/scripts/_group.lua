-- Part of scripts that create and remove groups.

local function has_group(stream, group)
  local groups = redis.pcall('XINFO', 'GROUPS', stream)
  if groups.err then
    if string.find(groups.err, 'no such key', 1, true) then return false end
    error(groups)
  end
  for _, info in ipairs(groups) do
    if info[2] == group then return true end
  end
  return false
end

local function is_ordered(cells, group)
  return redis.call('HEXISTS', cells, 'g:' .. group) == 1
end

-- Return the reason why a group cannot be joined, if any. KEYS[1] is the topic's declaration. The client
-- expects the given number of partitions; create is '1' if it may create the topic.
local function obstacle(stream, partitions, create)
  local count = redis.call('HGET', KEYS[1], 'partitions')
  if (count or '1') ~= partitions then return 'changed' end
  if not count and create ~= '1' and redis.call('EXISTS', stream) == 0 then return 'no topic' end
  return nil
end
