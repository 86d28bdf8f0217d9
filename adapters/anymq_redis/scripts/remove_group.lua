-- Remove a group, and optionally create it again elsewhere.
-- KEYS: members, cells, retry, delayed, payloads, then the topic's streams.
-- ARGV: group, milliseconds without a heartbeat after which a member counts as gone, then nothing, or for
-- each stream the id after which the new group starts.
-- Returns 1, or 0 if there is no such group, -1 if it has live members, -2 if it is ordered and should be
-- created again, which is left to the caller.

local group = ARGV[1]
local ordered = is_ordered(KEYS[2], group)
if not ordered and not has_group(KEYS[6], group) then return 0 end
if has_members(ARGV[2]) then return -1 end
if ordered and #ARGV > 2 then return -2 end
for i = 6, #KEYS do
  if has_group(KEYS[i], group) then redis.call('XGROUP', 'DESTROY', KEYS[i], group) end
  redis.call('HDEL', KEYS[2], (i - 6) .. ':' .. group)
end
redis.call('HDEL', KEYS[2], 'g:' .. group)
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4], KEYS[5])
if #ARGV > 2 then
  redis.call('XGROUP', 'CREATE', KEYS[3], group, '0', 'MKSTREAM')
  for i = 6, #KEYS do redis.call('XGROUP', 'CREATE', KEYS[i], group, ARGV[i - 3], 'MKSTREAM') end
end
return 1
