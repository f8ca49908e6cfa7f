-- Lists a run that the reference left as the document KEYS[1]: ARGV are its id, the score in lists, its workflow and
-- organisation, and, if it is to be due, now in milliseconds. Answers whether it was made due. See docs/spec/storage.md §10.
local id, score, workflow, org, now = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
if call('EXISTS', '@WF_RUN@' .. id) == 1 or call('EXISTS', KEYS[1]) == 0 then
  return 0
end
call('ZADD', '@WF_OF_ORG@' .. org, score, id)
if now == '' then
  return 0
end
call('SADD', '@WF_OPEN@' .. workflow, id)
return call('ZADD', '@WF_DUE@', 'NX', now, id)
