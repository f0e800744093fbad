-- Look at the open chords that are due.  Returns: group id, what is wrong with it ('expired' or 'unreleased'), and so on.
-- KEYS: open chords   ARGV: prefix of the chords' keys, ordered (1 or 0), seconds to the next look, most to look at, seconds that a body outlives
local time = redis.call('TIME')
local now, pause, found = tonumber(time[1]), tonumber(ARGV[3]), {}
for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[4])) do
  local chord = ARGV[1] .. id
  local claim, left = redis.call('GET', chord .. '.c'), redis.call('TTL', chord .. '.s')
  if claim == 'done' or redis.call('EXISTS', chord .. '.b') == 0 then
    redis.call('ZREM', KEYS[1], id)
  else
    local size, ended = tonumber(redis.call('GET', chord .. '.s') or nil), 0
    if not size then
      found[#found + 1] = id
      found[#found + 1] = 'expired'
      redis.call('ZADD', KEYS[1], now + pause, id) -- should whoever found it not come to the end
    else
      ended = redis.call(ARGV[2] == '1' and 'ZCARD' or 'LLEN', chord .. '.j')
      local all_ended = ended >= size + tonumber(redis.call('GET', chord .. '.t') or 0)
      -- A peer needs no claim to send the body, so it has the time between two looks.
      if all_ended and not claim and not redis.call('SET', chord .. '.w', 1, 'NX', 'EX', pause * 10) then
        found[#found + 1] = id
        found[#found + 1] = 'unreleased'
      end
      local next_look = left > 0 and left + 1 < pause and left + 1 or pause
      redis.call('ZADD', KEYS[1], now + next_look, id)
      if left > 0 then redis.call('EXPIRE', chord .. '.b', left + ARGV[5]) end
    end
  end
end
return found
