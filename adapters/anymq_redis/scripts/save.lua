-- Write cells by compare-and-set.
-- KEYS: cells.
-- ARGV: for each cell: name, expected revision, the id up to which everything is settled, value.
-- Returns the new revision of each cell, 0 if it had another revision than expected.

local revisions = {}
for i = 1, #ARGV, 4 do
  local cell = redis.call('HGET', KEYS[1], ARGV[i])
  local revision = cell and string.match(cell, '^%d+') or '0'
  if revision == ARGV[i + 1] then
    revision = string.format('%.0f', revision + 1)
    redis.call('HSET', KEYS[1], ARGV[i], revision .. ' ' .. ARGV[i + 2] .. ' ' .. ARGV[i + 3])
    revisions[#revisions + 1] = tonumber(revision)
  else
    revisions[#revisions + 1] = 0
  end
end
return revisions
