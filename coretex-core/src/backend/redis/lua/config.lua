-- Writes the document KEYS[1] = ARGV[1] if its revision is still ARGV[2], with the audit record ARGV[3] = ARGV[4]. See
-- docs/spec/storage.md §7.
local text = call('GET', KEYS[1])
local revision = 0
if text then
  local readable, document = pcall(cjson.decode, text)
  if not readable or type(document) ~= 'table' then
    return redis.error_reply('CORRUPT ' .. KEYS[1])
  end
  revision = tonumber(document.revision) or 0
end
if revision ~= tonumber(ARGV[2]) then
  return 0
end
call('SET', KEYS[1], ARGV[1])
if ARGV[3] ~= '' then
  enqueue(ARGV[3], ARGV[4])
end
return 1
