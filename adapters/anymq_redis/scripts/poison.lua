-- List the messages that a group has tried more than once and not settled.
-- KEYS: delayed, payloads, retry, then the topic's streams.
-- ARGV: group, the most entries to look at in each stream, '', then for each stream of the topic the
-- beginning of its positions.
-- Returns {position, attempts, consumer or ''} of each message, then the longest idle time of a pending
-- entry, and the time when the oldest message was stored (in milliseconds, 0 for none).

local found, idle, oldest = {}, 0, nil

local function see(position)
  local stored = tonumber(string.match(position or '', '(%d+)%-%d+$'))
  if stored and (not oldest or stored < oldest) then oldest = stored end
end

local function attempts(fields)
  local position, header, redelivered = nil, 1, 0
  for i = 1, #fields, 2 do
    if fields[i] == 'anymq-position' then position = fields[i + 1] end
    if fields[i] == 'anymq-attempt' then header = tonumber(fields[i + 1]) or 1 end
    if fields[i] == 'anymq-redelivered' then redelivered = tonumber(fields[i + 1]) or 0 end
  end
  return position, header + redelivered
end

local function add(position, tried, consumer)
  if tried > 1 then found[#found + 1] = {position, tried, consumer} end
end

local retried = {}
for k = 3, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[k], ARGV[1], '-', '+', ARGV[2])
  for _, entry in ipairs(pending) do
    idle = math.max(idle, entry[3])
    if k == 3 then
      retried[entry[1]] = entry
    else
      see(entry[1])
      add(ARGV[k] .. entry[1], entry[4], entry[2])
    end
  end
end
-- The attempt of a copy is in its header; that attempt has started if the copy is pending.
for _, copy in ipairs(redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', ARGV[2])) do
  local position, shown = attempts(copy[2])
  local entry = retried[copy[1]]
  see(position or copy[1])
  add(position or copy[1], shown - 1 + (entry and entry[4] or 0), entry and entry[2] or '')
end
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1)) do
  local payload = redis.call('HGET', KEYS[2], name)
  local position, next_one = attempts(payload and cmsgpack.unpack(payload) or {})
  see(position)
  add(position or '', next_one - 1, '')
end
return {found, idle, string.format('%.0f', oldest or 0)}
