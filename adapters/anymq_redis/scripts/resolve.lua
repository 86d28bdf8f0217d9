-- Find out whether a publish call was executed; if not, refuse it from now on.
-- KEYS: fence. ARGV: number of the call, milliseconds to keep the fence.
-- Returns the text that the call left in the fence, or nil if it has not been executed.

local last = redis.call('GET', KEYS[1])
if last and tonumber(string.match(last, '^%d+')) >= tonumber(ARGV[1]) then return last end
redis.call('SET', KEYS[1], ARGV[1] .. ' void', 'PX', ARGV[2])
return false
