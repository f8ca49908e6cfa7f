-- Appends entries to the audit log KEYS[1] if it still ends at place ARGV[1] with hash ARGV[2]; the rest are record ids and
-- entries in turn. See docs/spec/storage.md §9.
local call = redis.call
local log = KEYS[1]
if call('LLEN', log) ~= tonumber(ARGV[1]) then
  return 0
end
local last = call('LINDEX', log, -1)
if last then
  local readable, entry = pcall(cjson.decode, last)
  if not readable or type(entry) ~= 'table' then
    return redis.error_reply('CORRUPT ' .. log)
  end
  if entry.hash ~= ARGV[2] then
    return 0
  end
end
for i = 3, #ARGV, 2 do
  call('RPUSH', log, ARGV[i + 1])
  call('HSET', '@AUDIT_RECORDS@', ARGV[i], '')
  call('LREM', '@AUDIT_OUTBOX@', 1, ARGV[i])
end
return 1
