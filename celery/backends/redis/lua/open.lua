-- Enter a chord in the list of those that are open, and keep its body.
-- KEYS: open chords, body   ARGV: group id, body, seconds until the first look, seconds to keep the body (0: for ever)
local time = redis.call('TIME')
if ARGV[4] == '0' then
  redis.call('SET', KEYS[2], ARGV[2])
else
  redis.call('SET', KEYS[2], ARGV[2], 'EX', ARGV[4])
end
redis.call('ZADD', KEYS[1], time[1] + ARGV[3], ARGV[1])
return 1
