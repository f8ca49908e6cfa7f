-- One transition of the run KEYS[1]. Answers { 'A', revision }, { 'C', revision }, { 'G' }, or { 'L', text } for a document
-- of the reference that the caller has to send converted. See docs/spec/storage.md §10.
local key = KEYS[1]
local c = read_commit()
local base, base_to = list()
local base_add, base_add_to = list()

local m = call('HMGET', key, 'rev', 'token', 'status', 'workflow', 'org')
local adopted = false
if not m[1] then
  local text = c.legacy ~= '' and call('GET', c.legacy)
  if not text then
    return { 'G' }
  end
  local revision = revision_of(text)
  if revision ~= c.expected then
    return { 'C', revision }
  end
  if base > base_to then
    return { 'L', text }
  end
  chunks(base, base_to, 'HSET', key)
  call('DEL', c.legacy)
  for i = base_add, base_add_to, 2 do
    call('ZADD', '@WF_WAITING@', 'NX', A[i], c.id .. '\31' .. A[i + 1])
  end
  m = call('HMGET', key, 'rev', 'token', 'status', 'workflow', 'org')
  m[1] = revision
  adopted = true
end
local revision = whole(tonumber(c.expected) + 1)
if m[2] == c.token and m[1] == revision then
  return { 'A', revision }
end
if m[1] ~= c.expected then
  return { 'C', m[1] }
end
write_commit(key, c, revision, { status = m[3], adopted = adopted })
return { 'A', revision }
