-- Shared by the scripts that write jobs. Names between at signs are key prefixes, filled in from keys.rs.
local call = redis.call
local find, format, lower = string.find, string.format, string.lower

-- Whole numbers up to 2^53 without an exponent.
local function whole(n)
  return format('%.0f', n)
end

-- Where the job is: false if it is nowhere. Old data has the state only beside the hash.
local function state_of(id, in_hash)
  local state = in_hash or call('GET', '@STATE@' .. id)
  return state ~= '' and state
end

local function keep(key, ttl)
  if ttl > 0 then
    call('EXPIRE', key, ttl)
  end
end

local function set(key, value, ttl)
  if ttl > 0 then
    call('SET', key, value, 'EX', ttl)
  else
    call('SET', key, value)
  end
end

-- Which other job holds the idempotency key; false if it is free. The reference's key knows no tenants: it counts only
-- if its job is of the same one, or of none that we know. Of jobs that claimed a key here we know.
local function holder_of(id, scoped, legacy, tenant)
  local holder = call('GET', scoped)
  if not holder then
    holder = call('GET', legacy)
    if holder then
      local m = call('HMGET', '@META@' .. holder, 'cx_key_tenant', 'tenant')
      local its = m[1] or m[2]
      if its and its ~= '' and its ~= tenant then
        holder = false
      end
    end
  end
  return holder and holder ~= id and holder
end

local function claim(id, scoped, legacy, ttl)
  set(scoped, id, ttl)
  if ttl > 0 then
    call('SET', legacy, id, 'EX', ttl, 'NX')
  else
    call('SETNX', legacy, id)
  end
end

local function join_trace(trace, id, ttl)
  local key = '@TRACE@' .. trace
  call('SADD', key, id)
  keep(key, ttl)
end

local function join_tenant(tenant, id, ttl)
  local key = '@ACTIVE@' .. tenant
  call('SADD', key, id)
  keep(key, ttl)
end

-- Puts an audit record in the outbox, unless it was there before.
local function enqueue(record, text)
  if call('HSETNX', '@AUDIT_RECORDS@', record, text) == 1 then
    call('RPUSH', '@AUDIT_OUTBOX@', record)
  end
end
