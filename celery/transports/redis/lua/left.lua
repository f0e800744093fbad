-- Find what began and was left by a holder that is gone; whoever asks has until the end of the ttl to see to it.
-- ARGV: unacked, index of what began, ttl (s), limit.
-- Returns: tag, record, and so on.
local unacked, begun = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local later = string.format('%.3f', now + tonumber(ARGV[3]))
local found = {}
for _, tag in ipairs(redis.call('ZRANGEBYSCORE', begun, '-inf', string.format('%.3f', now), 'LIMIT', 0, ARGV[4])) do
    local record = redis.call('HGET', unacked, tag)
    if record then
        found[#found + 1] = tag
        found[#found + 1] = record
        redis.call('ZADD', begun, later, tag)
    else
        redis.call('ZREM', begun, tag) -- it had ended
    end
end
return found
