-- Counts entries behind an id. KEYS stream. ARGV id, how many at most, how many to pass over. Returns the
-- count, the id of the last one, and of the first that was not passed over, '' if there is none.

local count, last, first = 0, ARGV[1], ''
local most, skip = tonumber(ARGV[2]), tonumber(ARGV[3])
while count < most do
  local page = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', math.min(100, most - count))
  if #page == 0 then break end
  if first == '' and count + #page > skip then first = page[math.max(1, skip - count + 1)][1] end
  count, last = count + #page, page[#page][1]
end
return {count, last, first}
