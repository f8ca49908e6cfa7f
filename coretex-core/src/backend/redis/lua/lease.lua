-- Takes or renews the lease KEYS[1] for the holder ARGV[1], ARGV[2] milliseconds. See docs/spec/storage.md §6.
if redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') then
  return 1
end
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
  return 1
end
return 0
