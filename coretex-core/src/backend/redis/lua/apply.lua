-- One change of one job, whole or not at all. KEYS[1]: its hash. See docs/spec/storage.md §3.
local meta, A = KEYS[1], ARGV
local id, token, at, expected, from = A[1], A[2], tonumber(A[3]), A[4], A[5]
local finishes, dispatches, ends = A[6] == '1', A[7] == '1', A[8] == '1'
local ttl, data_ttl = tonumber(A[9]), tonumber(A[10])
local trace, deadline, worker, attempt_limit = A[11], A[12], A[13], A[14]
local slot, slot_limit = A[15], tonumber(A[16])
local decision, result_ptr, decided_at = A[17], A[18], A[19]
-- The end of the time for approval: empty leaves it, a dash clears it.
local votes, vote, approval_due, audit, audit_text = A[20] == '1', A[21], A[22], A[23], A[24]
local i = 25

-- The optional parts, each a count and so many arguments.
local function part()
  local count, first = tonumber(A[i]), i + 1
  i = first + count
  return count, first
end
local n_path, path = part()
local n_set, set_at = part()
local n_clear, clear_at = part()
local n_request, request_at = part()
local n_request_clear, request_clear_at = part()
local n_key, key_at = part()
local n_letter, letter_at = part()

local m = call('HMGET', meta, 'state', 'updated_at', 'attempts', 'topic', 'tenant', 'trace_id', 'deadline_unix',
  'result_ptr', 'cx_token', 'cx_worker_id', 'cx_slot', 'cx_pending_reason', 'cx_votes')
local state = state_of(id, m[1])
local revision, attempts = tonumber(m[2]) or 0, tonumber(m[3]) or 0
local topic, tenant, mark, old_worker, old_slot = m[4] or '', m[5] or '', m[9], m[10] or '', m[11] or ''

-- Applied before, and nothing since.
if mark and mark:sub(1, #token + 1) == token .. ' ' then
  local at_revision, previous = mark:match('^%S+ (%S+) (%S+)$')
  if at_revision == m[2] then
    return { 'A', m[2], previous, whole(attempts), topic, tenant, m[6] or '', old_worker }
  end
end

if not find(from, ',' .. (state or '-') .. ',', 1, true)
  or (finishes and state == 'PENDING' and attempts == 0)
  or (expected ~= '' and (not state or tonumber(expected) ~= revision)) then
  return { 'C', state or '', m[2] or '' }
end
if n_key > 0 and not state then
  local holder = holder_of(id, A[key_at], A[key_at + 1], A[key_at + 2])
  if holder then
    return { 'K', holder }
  end
end
if dispatches then
  -- A job that a reference scheduler left SCHEDULED was counted then.
  if state ~= 'SCHEDULED' or attempts == 0 then
    if attempt_limit ~= '' and attempts >= tonumber(attempt_limit) then
      return { 'X', whole(attempts) }
    end
    attempts = attempts + 1
  end
  if slot ~= '' and slot_limit > 0 and old_slot ~= slot then
    local placed = '@PLACED@' .. slot
    if call('SCARD', placed) >= slot_limit then
      -- Jobs whose metadata expired, or that a reference scheduler ended, still hold their places. Look now and then.
      local freed = 0
      if call('SET', '@CHECKED@' .. slot, '1', 'EX', 5, 'NX') then
        for _, member in ipairs(call('SRANDMEMBER', placed, 500)) do
          local its = state_of(member, call('HGET', '@META@' .. member, 'state'))
          if its ~= 'SCHEDULED' and its ~= 'DISPATCHED' and its ~= 'RUNNING' then
            freed = freed + call('SREM', placed, member)
          end
        end
      end
      if freed == 0 or call('SCARD', placed) >= slot_limit then
        return { 'L' }
      end
    end
  end
end

local target = A[path + n_path - 1]
local same = n_path == 1 and state == target
local previous = state or '-'
local events = { 'RPUSH', '@EVENTS@' .. id }
if not same then
  local time, n = math.max(at, revision + 1), 2
  if not state and A[path] ~= 'PENDING' then
    n = n + 1
    events[n] = whole(time) .. '|PENDING'
    time = time + 1
  end
  for k = path, path + n_path - 1 do
    n = n + 1
    events[n] = whole(time) .. '|' .. A[k]
    revision = time
    time = time + 1
  end
elseif votes then
  revision = math.max(at, revision + 1)
end
local now = whole(revision)

local f = { 'HSET', meta, 'state', target, 'updated_at', now, 'attempts', whole(attempts),
  'cx_token', token .. ' ' .. now .. ' ' .. previous }
local n = #f
local function put(name, value)
  f[n + 1] = name
  n = n + 2
  f[n] = value
end
for k = set_at, set_at + n_set - 1 do
  n = n + 1
  f[n] = A[k]
end
local writes_request = n_request > 0 and (A[request_at] == 'replace' or call('EXISTS', '@REQUEST@' .. id) == 0)
if writes_request then
  topic, tenant = A[request_at + 3], A[request_at + 5]
  for k = request_at + 2, request_at + n_request - 1 do
    n = n + 1
    f[n] = A[k]
  end
end
if n_key > 0 and not state then
  put('cx_key_tenant', A[key_at + 2])
end
if trace ~= '' and (not m[6] or m[6] == '') then
  put('trace_id', trace)
else
  trace = ''
end
local tightens = not ends and deadline ~= ''
if tightens then
  local old = tonumber(m[7]) or 0
  tightens = old <= 0 or tonumber(deadline) < old
  if tightens then
    put('deadline_unix', deadline)
  end
end
if dispatches then
  put('cx_dispatched_at', now)
  if worker ~= '' or old_worker ~= '' then
    put('cx_worker_id', worker)
  end
  if slot ~= '' or old_slot ~= '' then
    put('cx_slot', slot)
  end
  old_worker = worker
elseif old_slot ~= '' then
  put('cx_slot', '')
end
local cast = m[13] or ''
local forgets = target == 'APPROVAL_REQUIRED' and decision ~= ''
if vote ~= '' then
  if cast == '' or forgets then
    put('cx_votes', '[' .. vote .. ']')
  else
    put('cx_votes', cast:sub(1, -2) .. ',' .. vote .. ']')
  end
elseif forgets and cast ~= '' then
  put('cx_votes', '')
end
local letter = n_letter > 0
local explain = letter and result_ptr == '' and not find(m[8] or '', '%S')
if explain then
  result_ptr = A[letter_at + 6]
end
if result_ptr ~= '' then
  put('result_ptr', result_ptr)
end
-- First of all writes: the one that a server short of memory refuses, so that it refuses the whole change.
call(unpack(f))

-- Fields are deleted only if one may be there that should not be.
local clears_decision = false
if decision ~= '' then
  local count = call('RPUSH', '@DECISIONS@' .. id, decision)
  clears_decision = count > 1
  if count == 1 then
    keep('@DECISIONS@' .. id, ttl)
  end
  call('ZADD', '@DECISION_LOG@', decided_at, id .. '|' .. count)
end
if approval_due == '' then
  -- Stays as it is.
elseif approval_due ~= '-' then
  call('ZADD', '@APPROVALS_DUE@', approval_due, id)
elseif state == 'APPROVAL_REQUIRED' then
  call('ZREM', '@APPROVALS_DUE@', id)
end
if audit ~= '' then
  enqueue(audit, audit_text)
end
local clears_pending, clears_deadline = m[12] and true, ends and m[7]
if clears_decision or clears_pending or clears_deadline or (writes_request and n_request_clear > 0) then
  local d, n = { 'HDEL', meta }, 2
  for k = clear_at, clear_at + n_clear - 1 do
    local pending = A[k]:sub(1, 11) == 'cx_pending_'
    if (pending and clears_pending) or (not pending and clears_decision) then
      n = n + 1
      d[n] = A[k]
    end
  end
  if writes_request then
    for k = request_clear_at, request_clear_at + n_request_clear - 1 do
      n = n + 1
      d[n] = A[k]
    end
  end
  if clears_deadline then
    n = n + 1
    d[n] = 'deadline_unix'
  end
  if n > 2 then
    call(unpack(d))
  end
end

if votes then
  call('ZADD', '@INDEX@' .. lower(target), now, id)
  call('ZADD', '@RECENT@', now, id)
elseif not same then
  set('@STATE@' .. id, target, ttl)
  if state then
    call('ZREM', '@INDEX@' .. lower(state), id)
  end
  call('ZADD', '@INDEX@' .. lower(target), now, id)
  call('ZADD', '@RECENT@', now, id)
  if call(unpack(events)) == #events - 2 then
    keep('@EVENTS@' .. id, ttl)
  end
end
if writes_request then
  set('@REQUEST@' .. id, A[request_at + 1], ttl)
end
if trace ~= '' then
  join_trace(trace, id, ttl)
end
if tightens then
  call('ZADD', '@DEADLINE@', deadline, id)
elseif ends and m[7] then
  call('ZREM', '@DEADLINE@', id)
end
if m[5] and m[5] ~= '' and m[5] ~= tenant then
  call('SREM', '@ACTIVE@' .. m[5], id)
end
if tenant ~= '' then
  if ends then
    call('SREM', '@ACTIVE@' .. tenant, id)
  elseif not mark or writes_request then
    join_tenant(tenant, id, ttl)
  end
end
if old_slot ~= '' and old_slot ~= slot then
  call('SREM', '@PLACED@' .. old_slot, id)
end
if dispatches and slot ~= '' then
  call('SADD', '@PLACED@' .. slot, id)
end
if result_ptr ~= '' then
  set('@RESULT_PTR@' .. id, result_ptr, ttl)
end
if n_key > 0 and not state then
  claim(id, A[key_at], A[key_at + 1], ttl)
end
if letter then
  local text = A[letter_at]
  if topic ~= '' then
    text = text .. ',"topic":' .. cjson.encode(topic)
  end
  text = text .. A[letter_at + 1]
  if attempts > 0 then
    text = text .. ',"attempts":' .. whole(attempts)
  end
  call('SET', '@LETTER@' .. id, text .. A[letter_at + 2])
  call('ZADD', '@LETTERS@', A[letter_at + 3], id)
  if explain then
    if data_ttl > 0 then
      call('SET', A[letter_at + 4], A[letter_at + 5], 'EX', data_ttl, 'NX')
    else
      call('SETNX', A[letter_at + 4], A[letter_at + 5])
    end
  end
end
-- Renewed when a minute has gone, so that a quick job pays for it once.
if ttl > 0 then
  local left = state and call('TTL', meta)
  if not state then
    call('EXPIRE', meta, ttl)
  elseif left < ttl - 60 or left < ttl / 2 then
    call('EXPIRE', meta, ttl)
    for _, prefix in ipairs({ '@STATE@', '@REQUEST@', '@EVENTS@', '@DECISIONS@', '@RESULT_PTR@' }) do
      call('EXPIRE', prefix .. id, ttl)
    end
  end
end
return { 'A', now, previous, whole(attempts), topic, tenant, trace ~= '' and trace or m[6] or '', old_worker }
