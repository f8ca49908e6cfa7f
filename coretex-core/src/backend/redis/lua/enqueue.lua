-- Puts the audit record ARGV[1] = ARGV[2] in the outbox KEYS[1]. See docs/spec/storage.md §9.
enqueue(ARGV[1], ARGV[2])
return 1
