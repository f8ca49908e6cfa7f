-- Writes the definition KEYS[1]. See docs/spec/storage.md §10.
local doc = KEYS[1]
-- The digest of the document that the caller has seen, empty for none; its organisation.
local id, seen, old_org = arg(), arg(), arg()
local text, hash, revision, score, saved, org = arg(), arg(), arg(), arg(), arg(), arg()
local record, text_of_record = arg(), arg()

local stored = call('GET', doc)
if (stored and redis.sha1hex(stored) or '') ~= seen then
  return 0
end
call('SET', doc, text)
call('HSET', '@WF_DEF_META@' .. id, 'hash', hash, 'revision', revision, 'digest', redis.sha1hex(text))
if old_org ~= '' and old_org ~= org then
  call('ZREM', '@WF_INDEX_ORG@' .. old_org, id)
end
call('ZADD', '@WF_INDEX_ALL@', score, id)
if org ~= '' then
  call('ZADD', '@WF_INDEX_ORG@' .. org, score, id)
end
call('SETNX', '@WF_REV@' .. hash, text)
call('ZADD', '@WF_REVS@' .. id, 'NX', saved, hash)
if record ~= '' then
  enqueue(record, text_of_record)
end
return 1
