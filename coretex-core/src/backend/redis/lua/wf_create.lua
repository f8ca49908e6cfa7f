-- A new run KEYS[1] with its first transition. Answers { 'N' } (created), { 'R', run } (the idempotency key is that run's),
-- { 'M', run } (and it had another input), { 'E' } (there is one), { 'X', open } (too many). See docs/spec/storage.md §10.
local key = KEYS[1]
local c = read_commit()
local idem, fingerprint, ttl_ms, legacy_idem = arg(), arg(), arg(), arg()
local org_limit, workflow_limit = arg(), arg()

local m = call('HMGET', key, 'rev', 'created')
if m[1] and m[2] == c.token then
  return { 'N' }
end

-- Whether the run that holds the reference's key is there, and of this workflow and organisation. That key knows neither, and
-- outlives runs that were never created.
local function is_ours(run)
  local h = call('HMGET', '@WF_RUN@' .. run, 'workflow', 'org')
  if h[1] then
    return h[1] == c.workflow and h[2] == c.org
  end
  local text = redis.pcall('GET', '@WF_LEGACY@' .. run)
  if type(text) ~= 'string' then
    return false
  end
  local readable, document = pcall(cjson.decode, text)
  return readable and type(document) == 'table' and document.workflow_id == c.workflow
    and (document.org_id or '') == c.org
end

if idem ~= '' then
  local held = call('HMGET', idem, 'run', 'fingerprint')
  if held[1] then
    return { held[2] == fingerprint and 'R' or 'M', held[1] }
  end
  local run = call('GET', legacy_idem)
  if run and is_ours(run) then
    return { 'R', run }
  end
end
if m[1] or (c.legacy ~= '' and call('EXISTS', c.legacy) == 1) then
  return { 'E' }
end

-- Members of a set of open runs that are gone or ended, which others left there, are dropped: looked for at most every 5
-- seconds, when the limit is reached.
local function too_many(set_key, limit)
  if limit == '' then
    return false
  end
  limit = tonumber(limit)
  local open = call('SCARD', set_key)
  if open >= limit and open > 0 and call('SET', '@WF_CHECKED@' .. set_key, '1', 'NX', 'EX', 5) then
    for _, run in ipairs(call('SMEMBERS', set_key)) do
      local status = call('HGET', '@WF_RUN@' .. run, 'status')
      if status and ENDED[status] or not status and call('EXISTS', '@WF_LEGACY@' .. run) == 0 then
        call('SREM', set_key, run)
      end
    end
    open = call('SCARD', set_key)
  end
  return open >= limit and open
end

local open = (c.org ~= '' and too_many('@WF_ACTIVE@' .. c.org, org_limit))
  or too_many('@WF_OPEN@' .. c.workflow, workflow_limit)
if open then
  return { 'X', open }
end

call('HSET', key, 'created', c.token)
write_commit(key, c, '1', { status = false })
if idem ~= '' then
  call('HSET', idem, 'run', c.id, 'fingerprint', fingerprint)
  if ttl_ms ~= '' then
    call('PEXPIRE', idem, ttl_ms)
  end
end
return { 'N' }
