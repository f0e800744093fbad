-- Park deliveries until they are due: out of the record, payload kept, in one step.
-- ARGV: unacked, index, then six a delivery: tag, what is parked for its queue, list it goes to, due (s), id,
--       length of what follows the payload in the record.
-- Returns: tags that were not there any more.
-- A parked payload says so at its beginning, so that whoever takes it next need not announce it again.
local unacked, index = ARGV[1], ARGV[2]
local left = {}
for i = 3, #ARGV, 6 do
    local tag, parked, list, due, id, tail = unpack(ARGV, i, i + 5)
    local record = redis.call('HGET', unacked, tag)
    if record then
        redis.call('HDEL', unacked, tag)
        redis.call('ZREM', index, tag)
        local member, copy = id, 0
        while redis.call('HEXISTS', parked, member) == 1 do -- the same id may be sent twice
            copy = copy + 1
            member = id .. '\30' .. copy
        end
        local payload = string.sub(record, 2, #record - tonumber(tail))
        if string.sub(payload, 1, 20) ~= '{"celeriac-parked":1' then
            payload = '{"celeriac-parked":1,' .. string.sub(payload, 2)
        end
        redis.call('HSET', parked, member, list .. '\n' .. payload)
        redis.call('ZADD', parked .. ':due', due, member)
    else
        left[#left + 1] = tag
    end
end
return left
