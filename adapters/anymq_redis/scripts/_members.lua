-- Part of the scripts that ask who is there. KEYS[1] are the members.

local function has_members(absent)
  for _, seen in ipairs(redis.call('HVALS', KEYS[1])) do
    if tonumber(string.match(seen, '^%d+')) > now() - absent then return true end
  end
  return false
end
