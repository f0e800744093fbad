-- Record that tasks are revoked, and put those of them that are parked where a worker will meet (and discard) them.
-- ARGV: what is revoked, seconds to remember it, most to remember, how many queues, what is parked for each queue,
--       members...; a member is "i" and an id, or "s" and a stamp as JSON.
-- Returns: how many of the members are new.
-- Scores are the time in microseconds, and always greater than any before: what came last is found by its score.
local revoked, most, queues = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
redis.call('ZREM', revoked, '') -- a write that needs no memory first: after it a full server lets the others pass
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local version = tonumber(redis.call('GET', revoked .. ':version') or 0)
if version >= now then now = version + 1 end
local score, new = string.format('%.0f', now), 0
for i = 5 + queues, #ARGV do
    new = new + redis.call('ZADD', revoked, 'NX', score, ARGV[i])
    if string.byte(ARGV[i]) == 105 then
        local id = string.sub(ARGV[i], 2)
        for j = 5, 4 + queues do
            local copy, member = 0, id
            local record = redis.call('HGET', ARGV[j], member)
            while record do
                local cut = string.find(record, '\n', 1, true)
                redis.call('HDEL', ARGV[j], member)
                redis.call('ZREM', ARGV[j] .. ':due', member)
                redis.call('RPUSH', string.sub(record, 1, cut - 1), string.sub(record, cut + 1))
                copy = copy + 1
                member = id .. '\30' .. copy
                record = redis.call('HGET', ARGV[j], member)
            end
        end
    end
end
if new > 0 then redis.call('SET', revoked .. ':version', score) end
local oldest = string.format('%.0f', now - tonumber(ARGV[2]) * 1000000)
redis.call('ZREMRANGEBYSCORE', revoked, '-inf', oldest)
redis.call('ZREMRANGEBYRANK', revoked, 0, -most - 1)
redis.call('EXPIRE', revoked, ARGV[2])
redis.call('EXPIRE', revoked .. ':version', ARGV[2])
return new
