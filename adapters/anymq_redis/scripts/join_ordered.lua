-- Create an ordered group, unless it exists.
-- KEYS: about, cells, the topic's first stream.
-- ARGV: group, number of partitions, '1' to create the topic, '1' to create the group.
-- Returns an empty list, or an obstacle as text.

local why = obstacle(KEYS[3], ARGV[2], ARGV[3])
if why then return why end
if has_group(KEYS[3], ARGV[1]) then return 'unordered' end
if not is_ordered(KEYS[2], ARGV[1]) then
  if ARGV[4] ~= '1' then return 'no group' end
  redis.call('HSET', KEYS[2], 'g:' .. ARGV[1], '')
end
return {}
