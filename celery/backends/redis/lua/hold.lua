-- Keep the claim on a chord's body for longer.  Returns 1 if the caller holds it, also when it ran out and nobody took it.
-- KEYS: claim, size, body   ARGV: token, seconds
local holder = redis.call('GET', KEYS[1])
if holder == ARGV[1] then
  return redis.call('EXPIRE', KEYS[1], ARGV[2])
end
if not holder and redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
  return 1
end
return 0
