-- Extend the lease of the named tags.
-- ARGV: unacked, index, ttl (s), how many of the tags have started, tags...
-- Returns: tags that were no longer ours.
-- A started delivery is told from a waiting one by half a millisecond in its score.
local unacked, index, started = ARGV[1], ARGV[2], tonumber(ARGV[4])
-- A write that never needs memory comes first: after it a full server lets ZADD pass.
redis.call('ZREM', index, '')
local time = redis.call('TIME')
local expiry = string.format('%.3f', time[1] + time[2] / 1000000 + tonumber(ARGV[3]))
local lost = {}
for i = 5, #ARGV do
    if redis.call('HEXISTS', unacked, ARGV[i]) == 1 then
        redis.call('ZADD', index, i - 4 <= started and expiry .. '5' or expiry, ARGV[i])
    else
        lost[#lost + 1] = ARGV[i]
    end
end
return lost
