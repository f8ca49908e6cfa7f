-- Stores the revision KEYS[1] = ARGV[4] of the definition ARGV[1], named ARGV[2] and saved at ARGV[3], unless it is known.
call('SETNX', KEYS[1], ARGV[4])
call('ZADD', '@WF_REVS@' .. ARGV[1], 'NX', ARGV[3], ARGV[2])
return 1
