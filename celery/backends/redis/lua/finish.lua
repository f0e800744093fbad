-- The chord has ended: forget what counted it, and remember for a while that it is done.
-- KEYS: claim, open chords, keys to forget...   ARGV: token, seconds, group id
local holder = redis.call('GET', KEYS[1])
if holder ~= ARGV[1] then
  return 0
end
redis.call('ZREM', KEYS[2], ARGV[3])
for i = 3, #KEYS do
  redis.call('DEL', KEYS[i])
end
redis.call('SET', KEYS[1], 'done', 'EX', ARGV[2])
return 1
