-- Lists what a group has tried more than once and not settled. KEYS delayed, payloads, retry, then the
-- topic's streams. ARGV group, how many to look at in each, then for each stream what positions in it begin
-- with. Returns of each position, attempts, consumer or '', then the idle time of the one that is pending
-- for longest.

local found, idle = {}, 0

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

for k = 3, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[k], ARGV[1], '-', '+', ARGV[2])
  for _, entry in ipairs(pending) do
    local position, tried = ARGV[k - 1] .. entry[1], entry[4]
    idle = math.max(idle, entry[3])
    if k == 3 then
      local copy = redis.call('XRANGE', KEYS[k], entry[1], entry[1])[1]
      local origin, shown = attempts(copy and copy[2] or {})
      position, tried = origin or entry[1], tried - 1 + shown
    end
    add(position, tried, entry[2])
  end
end
for _, name in ipairs(redis.call('ZRANGE', KEYS[1], 0, ARGV[2] - 1)) do
  local payload = redis.call('HGET', KEYS[2], name)
  local position, next_one = attempts(payload and cmsgpack.unpack(payload) or {})
  add(position or '', next_one - 1, '')
end
return {found, idle}
