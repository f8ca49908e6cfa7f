-- A new job, PENDING. KEYS[1]: its hash. See docs/spec/storage.md §3.
local meta, A = KEYS[1], ARGV
local id, at, ttl, data_ttl = A[1], A[2], tonumber(A[3]), tonumber(A[4])
local request, has_payload, payload = A[5], A[6], A[7]
local scoped, legacy, key_tenant = A[8], A[9], A[10]
local deadline, trace, tenant = A[11], A[12], A[13]

local state = state_of(id, call('HGET', meta, 'state'))
if state then
  return { 'E', state }
end
if scoped ~= '' then
  local holder = holder_of(id, scoped, legacy, key_tenant)
  if holder then
    return { 'D', holder, call('HGET', '@META@' .. holder, 'trace_id') or '' }
  end
end

local fields = { 'HSET', meta, 'state', 'PENDING', 'updated_at', at, 'attempts', '0', 'cx_token', '- ' .. at .. ' -' }
local n = #fields
for i = 14, #A do
  n = n + 1
  fields[n] = A[i]
end
call(unpack(fields))
keep(meta, ttl)
set('@STATE@' .. id, 'PENDING', ttl)
set('@REQUEST@' .. id, request, ttl)
if has_payload == '1' then
  set('@CONTEXT@' .. id, payload, data_ttl)
end
call('ZADD', '@INDEX@pending', at, id)
call('ZADD', '@RECENT@', at, id)
call('RPUSH', '@EVENTS@' .. id, at .. '|PENDING')
keep('@EVENTS@' .. id, ttl)
if tenant ~= '' then
  join_tenant(tenant, id, ttl)
end
if trace ~= '' then
  join_trace(trace, id, ttl)
end
if deadline ~= '' then
  call('ZADD', '@DEADLINE@', deadline, id)
end
if scoped ~= '' then
  claim(id, scoped, legacy, ttl)
end
return { 'A', at }
