-- Count a member of a chord that has ended.  Returns how many there are if the caller is to send the body, else 0.
-- KEYS: parts, added, size, counted, group, claim
-- ARGV: task id, part, ordered (1 or 0), index, seconds to keep, seconds to keep the group, seconds of the claim, token
if redis.call('GET', KEYS[6]) == 'done' then
  return 0
end

local ordered = ARGV[3] == '1'
local member = ARGV[1] .. ':' .. ARGV[4]
if redis.call('SISMEMBER', KEYS[4], member) == 0 then
  if ordered then
    redis.call('ZADD', KEYS[1], ARGV[4], ARGV[2])
  else
    redis.call('RPUSH', KEYS[1], ARGV[2])
  end
  redis.call('SADD', KEYS[4], member)
end

local ended
if ordered then
  ended = redis.call('ZCOUNT', KEYS[1], '-inf', '+inf')
else
  ended = redis.call('LLEN', KEYS[1])
end

local keep = tonumber(ARGV[5])
if keep > 0 then
  for i = 1, 4 do
    redis.call('EXPIRE', KEYS[i], keep)
  end
end
local keep_group = tonumber(ARGV[6])
if keep_group > 0 then
  redis.call('EXPIRE', KEYS[5], keep_group)
end

local added = tonumber(redis.call('GET', KEYS[2]) or 0)
local size = tonumber(redis.call('GET', KEYS[3]) or nil)
if not size or ended < size + added then
  return 0
end
local holder = redis.call('GET', KEYS[6])
-- Another delivery of the member that holds the claim: whoever had it before is gone, or will find that it is not his.
if not holder or string.sub(holder, 1, #ARGV[1] + 1) == ARGV[1] .. ':' then
  redis.call('SET', KEYS[6], ARGV[8], 'EX', ARGV[7])
  return ended
end
return 0
