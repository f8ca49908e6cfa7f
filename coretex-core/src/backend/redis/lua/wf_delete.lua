-- Deletes the run KEYS[1] = ARGV[1] if its revision is ARGV[2]; ARGV[3] is the key of its document if the reference left it.
-- ARGV[4] = ARGV[5]: the audit record. Answers as wf_commit.lua. See docs/spec/storage.md §10.
local key = KEYS[1]
local id, expected, legacy = arg(), arg(), arg()
local record, text_of_record = arg(), arg()

local m = call('HMGET', key, 'rev', 'status', 'workflow', 'org')
if not m[1] then
  local text = legacy ~= '' and call('GET', legacy)
  if not text then
    return { 'G' }
  end
  m[1] = revision_of(text)
  local readable, document = pcall(cjson.decode, text)
  if readable and type(document) == 'table' then
    local function member(name)
      return type(document[name]) == 'string' and document[name] or ''
    end
    m[2], m[3], m[4] = member('status'), member('workflow_id'), member('org_id')
  else
    m[2], m[3], m[4] = '', '', ''
  end
end
if m[1] ~= expected then
  return { 'C', m[1] }
end
for _, field in ipairs(call('HKEYS', key)) do
  if sub(field, 1, 2) == 's:' then
    call('ZREM', '@WF_WAITING@', id .. '\31' .. sub(field, 3))
  end
end
if legacy ~= '' and call('EXISTS', legacy) == 1 then
  -- Its place need not be where the document says.
  for _, status in ipairs({ 'pending', 'running', 'waiting', 'succeeded', 'failed', 'cancelled', 'timed_out' }) do
    call('ZREM', '@WF_STATUS@' .. status, id)
  end
end
call('UNLINK', key, '@WF_TIMELINE@' .. id)
if legacy ~= '' then
  call('DEL', legacy)
end
call('ZREM', '@WF_STATUS@' .. m[2], id)
call('ZREM', '@WF_ALL@', id)
call('ZREM', '@WF_RUNS@' .. m[3], id)
call('ZREM', '@WF_OF_ORG@' .. m[4], id)
call('SREM', '@WF_ACTIVE@' .. m[4], id)
call('SREM', '@WF_OPEN@' .. m[3], id)
call('ZREM', '@WF_DUE@', id)
if record ~= '' then
  enqueue(record, text_of_record)
end
return { 'A', m[1] }
