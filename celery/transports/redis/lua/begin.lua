-- Take deliveries out of what is given out again when their holder dies, and extend the time for which they count as running.
-- ARGV: unacked, index, index of what began, ttl (s), tags...
-- Returns: tags that are no longer on record.
local unacked, index, begun = ARGV[1], ARGV[2], ARGV[3]
-- A write that never needs memory comes first: after it a full server lets ZADD pass.
redis.call('ZREM', index, '')
local time = redis.call('TIME')
local expiry = string.format('%.3f', time[1] + time[2] / 1000000 + tonumber(ARGV[4]))
local gone = {}
for i = 5, #ARGV do
    if redis.call('HEXISTS', unacked, ARGV[i]) == 1 then
        redis.call('ZADD', begun, expiry, ARGV[i])
        redis.call('ZREM', index, ARGV[i])
    else
        gone[#gone + 1] = ARGV[i]
    end
end
return gone
