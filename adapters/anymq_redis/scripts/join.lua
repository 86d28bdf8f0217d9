-- Create a group on each of its streams where it is missing.
-- KEYS: about, cells, retry, then the topic's streams.
-- ARGV: group, number of partitions, '1' to create the topic, '1' to create the group, then for each stream
-- the id after which the group starts.
-- Returns the numbers of the streams where it was missing (0 for the retry stream), or an obstacle as text.

local group = ARGV[1]
local why = obstacle(KEYS[4], ARGV[2], ARGV[3])
if why then return why end
if is_ordered(KEYS[2], group) then return 'ordered' end
local missing = {}
for i = 3, #KEYS do
  if not has_group(KEYS[i], group) then
    if i > 3 and ARGV[4] ~= '1' then return 'no group' end
    missing[#missing + 1] = i - 3
  end
end
for _, i in ipairs(missing) do
  local start = i == 0 and '0' or ARGV[4 + i]
  redis.call('XGROUP', 'CREATE', KEYS[3 + i], group, start, 'MKSTREAM')
end
return missing
