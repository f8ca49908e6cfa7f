-- Takes up to ARGV[3] members of KEYS[1] that are due by ARGV[1], and makes them due again at ARGV[2]. Answers them, and when the
-- first of all is due now.
local call = redis.call
local found = call('ZRANGEBYSCORE', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, ARGV[3])
for i = 1, #found do
  call('ZADD', KEYS[1], ARGV[2], found[i])
end
local first = call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
return { found, first[2] or '' }
