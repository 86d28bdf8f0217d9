-- Count entries after an id.
-- KEYS: stream. ARGV: id, the most to count.
-- Returns the count, the id of the last entry, and the id of the first ('' if there is none).

local count, last, first = 0, ARGV[1], ''
local most = tonumber(ARGV[2])
while count < most do
  local page = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', math.min(100, most - count))
  if #page == 0 then break end
  if first == '' then first = page[1][1] end
  count, last = count + #page, page[#page][1]
end
return {count, last, first}
