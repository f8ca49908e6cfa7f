-- Writes the schedule KEYS[1] = ARGV[1] if its revision is still ARGV[3]: ARGV[2] is the document, empty to delete it whatever its
-- revision, ARGV[4] when it is due, ARGV[5] = ARGV[6] the audit record. See docs/spec/storage.md §10.
local id, text, expected, due, record, text_of_record = arg(), arg(), arg(), arg(), arg(), arg()
local stored = call('GET', KEYS[1])
if text == '' then
  if not stored then
    return 0
  end
  call('DEL', KEYS[1])
  call('ZREM', '@WF_SCHEDULES@', id)
else
  local revision = 0
  if stored then
    local readable, document = pcall(cjson.decode, stored)
    if not readable or type(document) ~= 'table' then
      return redis.error_reply('CORRUPT ' .. KEYS[1])
    end
    revision = tonumber(document.revision) or 0
  end
  if revision ~= tonumber(expected) then
    return 0
  end
  call('SET', KEYS[1], text)
  call('ZADD', '@WF_SCHEDULES@', 0, id)
end
if due == '' then
  call('ZREM', '@WF_SCHEDULES_DUE@', id)
else
  call('ZADD', '@WF_SCHEDULES_DUE@', due, id)
end
if record ~= '' then
  enqueue(record, text_of_record)
end
return 1
