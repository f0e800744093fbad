-- Take deliveries out of the record and put their messages somewhere, each only if it is still there.
-- ARGV: unacked, index, then five a delivery: tag, age (s), R|L|- (end of the list), list, payload.
-- age >= 0: only if its time ran out at least that long ago (a sweep); -1: it is ours to move.
-- tag "=": one more copy, if the delivery before it was moved.
-- Returns: tags that were not there any more, or were renewed meanwhile.
local unacked, index = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local left, moved = {}, false
for i = 3, #ARGV, 5 do
    local tag, age, side, list, payload = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2], ARGV[i + 3], ARGV[i + 4]
    if tag ~= '=' then
        local score = age >= 0 and redis.call('ZSCORE', index, tag)
        moved = (age < 0 or (score and tonumber(score) <= now - age)) and redis.call('HDEL', unacked, tag) == 1
        if moved then redis.call('ZREM', index, tag) else left[#left + 1] = tag end
    end
    if moved and side == 'R' then redis.call('RPUSH', list, payload) end
    if moved and side == 'L' then redis.call('LPUSH', list, payload) end
end
return left
