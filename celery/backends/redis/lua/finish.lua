-- The body is sent: forget what counted the chord, and remember for a while that it is done.
-- KEYS: claim, parts, added, size, counted   ARGV: token, seconds
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[4], KEYS[5])
redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2])
return 1
