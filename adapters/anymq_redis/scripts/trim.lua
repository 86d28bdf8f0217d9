-- Trim a topic to its retention: entries that are too old, and the oldest ones beyond the bound in bytes.
-- Entries that a group has not settled stay; XTRIM with MAXLEN, or MINID alone, would lose them.
-- KEYS: about, cells, then the topic's streams.
-- ARGV: retention in milliseconds and in bytes for a topic without its own ('' for no bound), then the most
-- entries to delete.
-- Returns how many entries were deleted, then the two bounds in force (-1 for none).

local own = redis.call('HMGET', KEYS[1], 'retention', 'bytes')
local age, size = tonumber(own[1] or ARGV[1]), tonumber(own[2] or ARGV[2])
local left, deleted = tonumber(ARGV[3]), 0

local function less(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

local function parse(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)$')
  return {tonumber(ms), tonumber(seq)}
end

local function trim(stream, how, id, most)
  local least = string.format('%.0f-%.0f', id[1], id[2])
  local args = how == '~' and {'~', least, 'LIMIT', most} or {least}
  local count = redis.call('XTRIM', stream, 'MINID', unpack(args))
  left, deleted = left - count, deleted + count
  return count
end

-- Return the id of the oldest entry of a stream that some group still needs.
local function needed(stream, partition)
  local least = {math.huge, 0}
  local function keep(id, step)
    local position = parse(id)
    position[2] = position[2] + step
    if less(position, least) then least = position end
  end
  for _, group in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
    local info = {}
    for i = 1, #group, 2 do info[group[i]] = group[i + 1] end
    keep(info['last-delivered-id'], 1)
    local pending = redis.call('XPENDING', stream, info['name'])
    if pending[1] > 0 then keep(pending[2], 0) end
  end
  local cells = redis.call('HGETALL', KEYS[2])
  for i = 1, #cells, 2 do
    if string.match(cells[i], '^(%d+):') == partition then
      keep(string.match(cells[i + 1], '^%d+ (%S+)'), 1)
    end
  end
  return least
end

local streams = {}
for i = 3, #KEYS do
  if (age or size) and redis.call('EXISTS', KEYS[i]) == 1 then
    streams[#streams + 1] = {KEYS[i], needed(KEYS[i], tostring(i - 3))}
  end
end

if age then
  local oldest = {now() - age, 0}
  for _, stream in ipairs(streams) do
    local id = less(stream[2], oldest) and stream[2] or oldest
    local most = left
    -- The approximate form deletes whole nodes of the tree; then the rest is part of a single node.
    if most > 0 and id[1] >= 0 and trim(stream[1], '~', id, most) * 2 <= most then
      trim(stream[1], '=', id)
    end
  end
end

local function usage()
  local bytes, entries = 0, 0
  for _, stream in ipairs(streams) do
    bytes = bytes + redis.call('MEMORY', 'USAGE', stream[1])
    entries = entries + redis.call('XLEN', stream[1])
  end
  return bytes, entries
end

local function first(stream)
  local entry = redis.call('XRANGE', stream, '-', '+', 'COUNT', 1)[1]
  return entry and parse(entry[1]) or nil
end

-- Trim the stream with the oldest entry first, in steps of whole nodes, each a hundred entries or more.
if size then
  for _, stream in ipairs(streams) do stream[3] = first(stream[1]) end
  local bytes, entries = usage()
  while left > 0 and bytes > size do
    local oldest
    for _, stream in ipairs(streams) do
      if stream[3] and (not oldest or less(stream[3], oldest[3])) then oldest = stream end
    end
    if not oldest then break end
    local id = {math.min(oldest[2][1], now() + 1), oldest[2][2]}
    local most, gone = math.ceil((bytes - size) / bytes * entries / #streams), 0
    repeat
      gone = trim(oldest[1], '~', id, most)
      most = most * 2
    until gone > 0 or most > 1000
    oldest[3] = gone > 0 and first(oldest[1]) or nil
    bytes, entries = usage()
  end
end

return {deleted, age or -1, size or -1}
