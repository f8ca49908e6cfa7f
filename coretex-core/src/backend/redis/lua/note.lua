-- Something learned about a job that moves it nowhere. KEYS[1]: its hash. See docs/spec/storage.md §3.
local meta, kind = KEYS[1], ARGV[2]
local m = call('HMGET', meta, 'state', 'cx_worker_id', 'cx_accepted_at')
local state = state_of(ARGV[1], m[1])
if kind == 'accepted' then
  if (state == 'SCHEDULED' or state == 'DISPATCHED' or state == 'RUNNING') and m[2] == ARGV[3]
    and (not m[3] or m[3] == '') then
    call('HSET', meta, 'cx_accepted_at', ARGV[4])
  end
elseif kind == 'waiting' then
  if state == 'PENDING' then
    call('HSET', meta, 'cx_pending_reason', ARGV[3], 'cx_pending_detail', ARGV[4], 'cx_owner', ARGV[5])
  end
elseif state and find(',PENDING,APPROVAL_REQUIRED,SCHEDULED,DISPATCHED,RUNNING,', ',' .. state .. ',', 1, true) then
  call('HSET', meta, 'cx_owner', ARGV[3])
end
return 1
