-- Shared by the scripts that write runs. See docs/spec/storage.md §10.
local A = ARGV
local at = 0
local sub = string.sub
local ENDED = { succeeded = true, failed = true, cancelled = true, timed_out = true }

local function arg()
  at = at + 1
  return A[at]
end

-- The places of the first and the last of a list of arguments that stands behind its length.
local function list()
  local n = tonumber(arg())
  local from = at + 1
  at = at + n
  return from, at
end

-- One command for at most 1000 arguments.
local function chunks(from, to, command, key)
  for i = from, to, 1000 do
    call(command, key, unpack(A, i, math.min(i + 999, to)))
  end
end

-- The revision of a document of the reference: its content, as a number.
local function revision_of(text)
  return whole(tonumber(sub(redis.sha1hex(text), 1, 12), 16))
end

-- What a commit brings, in the order of encode.rs.
local function read_commit()
  local c = {
    id = arg(),
    expected = arg(),
    token = arg(),
    status = arg(),
    updated = arg(),
    score = arg(),
    workflow = arg(),
    org = arg(),
    team = arg(),
    due = arg(),
    keep = arg(),
    ttl = tonumber(arg()),
    legacy = arg(),
  }
  c.fields, c.fields_to = list()
  c.clear, c.clear_to = list()
  c.timeline, c.timeline_to = list()
  c.payloads, c.payloads_to = list()
  c.add, c.add_to = list()
  c.remove, c.remove_to = list()
  c.audit, c.audit_to = list()
  return c
end

-- Writes a commit. `old` is what the run was: its status, workflow and organisation; status false if it is new.
local function write_commit(key, c, revision, old)
  call('HSET', key, 'rev', revision, 'token', c.token, 'status', c.status, 'updated', c.updated, 'workflow', c.workflow,
    'org', c.org, 'team', c.team)
  chunks(c.fields, c.fields_to, 'HSET', key)
  chunks(c.clear, c.clear_to, 'HDEL', key)

  local was, is = old.status, c.status
  if was and was ~= is then
    call('ZREM', '@WF_STATUS@' .. was, c.id)
  end
  call('ZADD', '@WF_STATUS@' .. is, c.score, c.id)
  call('ZADD', '@WF_ALL@', c.score, c.id)
  call('ZADD', '@WF_RUNS@' .. c.workflow, c.score, c.id)
  call('ZADD', '@WF_OF_ORG@' .. c.org, c.score, c.id)
  if ENDED[is] then
    if was and not ENDED[was] then
      call('SREM', '@WF_ACTIVE@' .. c.org, c.id)
      call('SREM', '@WF_OPEN@' .. c.workflow, c.id)
    end
  elseif not was or ENDED[was] or old.adopted then
    if c.org ~= '' then
      call('SADD', '@WF_ACTIVE@' .. c.org, c.id)
    end
    call('SADD', '@WF_OPEN@' .. c.workflow, c.id)
  end

  if c.due == '' then
    call('ZREM', '@WF_DUE@', c.id)
  else
    call('ZADD', '@WF_DUE@', c.due, c.id)
  end
  for i = c.remove, c.remove_to do
    call('ZREM', '@WF_WAITING@', c.id .. '\31' .. A[i])
  end
  for i = c.add, c.add_to do
    call('ZADD', '@WF_WAITING@', 'NX', c.updated, c.id .. '\31' .. A[i])
  end
  for i = c.payloads, c.payloads_to, 2 do
    set(A[i], A[i + 1], c.ttl)
  end
  if c.timeline <= c.timeline_to then
    local timeline = '@WF_TIMELINE@' .. c.id
    chunks(c.timeline, c.timeline_to, 'RPUSH', timeline)
    call('LTRIM', timeline, '-' .. c.keep, -1)
  end
  for i = c.audit, c.audit_to, 2 do
    enqueue(A[i], A[i + 1])
  end
end
