-- Part of scripts that check for live members. KEYS[1] is the hash of heartbeats.

local function has_members(absent)
  for _, seen in ipairs(redis.call('HVALS', KEYS[1])) do
    if tonumber(string.match(seen, '^%d+')) > now() - absent then return true end
  end
  return false
end
