-- Show what is parked: the first `limit` of each queue, or those with the ids that are named.
-- ARGV: limit, how many queues, what is parked for each queue, ids...
-- Returns: due (s), record, and so on.
local limit, queues = tonumber(ARGV[1]), tonumber(ARGV[2])
local found = {}
local function add(parked, member, due)
    local record = redis.call('HGET', parked, member)
    if record then
        found[#found + 1] = due or redis.call('ZSCORE', parked .. ':due', member) or '0'
        found[#found + 1] = record
    end
end
for i = 3, 2 + queues do
    if #ARGV > 2 + queues then
        for j = 3 + queues, #ARGV do add(ARGV[i], ARGV[j]) end
    else
        local first = redis.call('ZRANGE', ARGV[i] .. ':due', 0, limit - 1, 'WITHSCORES')
        for j = 1, #first, 2 do add(ARGV[i], first[j], first[j + 1]) end
    end
end
return found
