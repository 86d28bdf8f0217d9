-- Tells what became of a publish. KEYS fence. ARGV number of the call, milliseconds to remember it.
-- Returns what its call left in the fence; nil if it has not come, and then it will be refused.

local last = redis.call('GET', KEYS[1])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[1]) then return last end
redis.call('SET', KEYS[1], ARGV[1] .. ' void', 'PX', ARGV[2])
return false
