-- Deletes what is older than the retention, but nothing that a group has not settled: MAXLEN, or
-- MINID alone, would lose messages. KEYS stream. ARGV milliseconds of retention, how many at most.
-- Returns how many were deleted; 0 when all is done.

local ms, seq = now() - tonumber(ARGV[1]), 0
local function keep(id, step)
  local m, s = string.match(id, '^(%d+)-(%d+)$')
  m, s = tonumber(m), tonumber(s) + step
  if m < ms or (m == ms and s < seq) then ms, seq = m, s end
end
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if groups.err then return 0 end
for _, group in ipairs(groups) do
  local info = {}
  for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
  keep(info['last-delivered-id'], 1)
  local pending = redis.call('XPENDING', KEYS[1], info['name'])
  if pending[1] > 0 then keep(pending[2], 0) end
end
if ms < 0 then return 0 end
local least = string.format('%.0f-%.0f', ms, seq)
local deleted = redis.call('XTRIM', KEYS[1], 'MINID', '~', least, 'LIMIT', ARGV[2])
if deleted > 0 then return deleted end
-- The approximate form deletes whole nodes of the tree; what is left is part of a single one.
return redis.call('XTRIM', KEYS[1], 'MINID', least)
