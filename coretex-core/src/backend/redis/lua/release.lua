-- Gives the lease KEYS[1] back if ARGV[1] holds it. See docs/spec/storage.md §6.
if redis.call('GET', KEYS[1]) == ARGV[1] then
  redis.call('DEL', KEYS[1])
end
return 1
