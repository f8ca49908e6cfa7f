-- Deletes the definition KEYS[1] = ARGV[1] of the organisation ARGV[3] if its digest is ARGV[2], with the audit record
-- ARGV[4] = ARGV[5]. Its revisions stay. See docs/spec/storage.md §10.
local id, seen, org, record, text_of_record = arg(), arg(), arg(), arg(), arg()
local stored = call('GET', KEYS[1])
if (stored and redis.sha1hex(stored) or '') ~= seen then
  return 0
end
call('DEL', KEYS[1], '@WF_DEF_META@' .. id)
call('ZREM', '@WF_INDEX_ALL@', id)
call('ZREM', '@WF_INDEX_ORG@' .. org, id)
if record ~= '' then
  enqueue(record, text_of_record)
end
return 1
