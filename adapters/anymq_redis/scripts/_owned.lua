-- Part of scripts that settle entries.
-- KEYS: the stream where the entries are pending, then the script's own, last the hash of known starts.
-- ARGV: group, consumer, kind of the stream, then the script's own.
-- The kind is '1' for the group's retry stream: a settled entry is deleted from it. For other streams it
-- is the beginning of their positions. A field in the hash of starts is the kind, ':' and the id.

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

-- Return the ids that are pending for this consumer. Most ids are adjacent, so one XPENDING finds them;
-- any others are looked up one by one.
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
