-- Return entries that are pending for this consumer already, and renew their leases. XREADGROUP with an id
-- would do the same and count a delivery.
-- ARGV: as in _owned.lua, then the ids. Returns as claim.lua does.

local taken, deleted = {}, {}
for i = 4, #ARGV do
  local id = ARGV[i]
  local count = count_of(id)
  if count then
    local entry = redis.call('XRANGE', KEYS[1], id, id)[1]
    if entry then
      redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, id, 'JUSTID')
      taken[#taken + 1] = {id, entry[2], count, count > 1 and starts_of(id) or -1}
    else
      deleted[#deleted + 1] = id
    end
  end
end
settle(deleted)
return {'0-0', taken, #deleted}
