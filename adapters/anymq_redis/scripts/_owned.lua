-- Part of the scripts that settle. KEYS[1] is the stream where the entries are pending, ARGV[1] the
-- group, ARGV[2] the consumer, ARGV[3] '1' if the stream is the group's own: what is settled is
-- deleted from it then. Else it is what positions in this stream begin with. The last key is the hash of
-- the starts that are known, by ARGV[3], ':', and the id.

local function count_of(id)
  local reply = redis.pcall('XPENDING', KEYS[1], ARGV[1], id, id, 1)
  if reply.err then
    if string.find(reply.err, 'NOGROUP', 1, true) then return nil end
    error(reply)
  end
  local entry = reply[1]
  if entry and entry[2] == ARGV[2] then return entry[4] end
  return nil
end

-- Which of the ids are pending for us. Mostly they are next to each other, so one look finds all; what it
-- does not find is looked up by itself.
local function owned(ids)
  local known, found = {}, {}
  if #ids > 3 then
    local reply = redis.pcall('XPENDING', KEYS[1], ARGV[1], ids[1], ids[#ids], #ids, ARGV[2])
    for _, entry in ipairs(reply) do known[entry[1]] = true end
  end
  for _, id in ipairs(ids) do
    if known[id] or count_of(id) then found[#found + 1] = id end
  end
  return found
end

local function starts_of(id)
  return tonumber(redis.call('HGET', KEYS[#KEYS], ARGV[3] .. ':' .. id) or 0)
end

local function forget_starts(ids)
  if redis.call('EXISTS', KEYS[#KEYS]) == 0 then return end
  for _, id in ipairs(ids) do redis.call('HDEL', KEYS[#KEYS], ARGV[3] .. ':' .. id) end
end

local function settle(ids)
  forget_starts(ids)
  for i = 1, #ids, 1000 do
    local stop = math.min(i + 999, #ids)
    redis.call('XACK', KEYS[1], ARGV[1], unpack(ids, i, stop))
    if ARGV[3] == '1' then redis.call('XDEL', KEYS[1], unpack(ids, i, stop)) end
  end
end
