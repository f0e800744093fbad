-- Acknowledge what is named, put parked messages that are due into their lists, lease up to `want`; in one step.
-- KEYS: the lists, priority by priority, within a priority in the order of the queues; then, if there are any, what
--       is parked for each queue, and the version of what is revoked.
-- ARGV: unacked, index, lease, ttl (s), queues a priority, fair (1/0), one suffix a list ("" = do not record),
--       first number, want (-1: only look for what is due), acknowledged tags...
-- Returns: {tags that were no longer ours}, ms until the next one parked is due (-1: none is), version of what is
--          revoked ("" if nothing is), then pairs: number of the list, {payloads}.
local unacked, index, lease = ARGV[1], ARGV[2], ARGV[3]
local width, fair = tonumber(ARGV[5]), ARGV[6] == '1'
local lists = #KEYS > 0 and #KEYS - width - 1 or 0
local number, want = tonumber(ARGV[7 + lists]), tonumber(ARGV[8 + lists])
local lost = {}
for from = 9 + lists, #ARGV, 1000 do
    local to = math.min(from + 999, #ARGV)
    if redis.call('ZREM', index, unpack(ARGV, from, to)) == to - from + 1 then
        redis.call('HDEL', unacked, unpack(ARGV, from, to))
    else
        for i = from, to do
            if redis.call('HDEL', unacked, ARGV[i]) == 0 then lost[#lost + 1] = ARGV[i] end
        end
    end
end
local reply = {lost, -1, ''}
if want == 0 then return reply end

local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000

-- Moves at most `want` due messages of a queue to where they are taken next, the earliest first; nobody who has no
-- room moves any beside a list that is not empty.
local function bring(parked)
    local most = want > 0 and want or 100
    local found = redis.call('ZRANGEBYSCORE', parked .. ':due', '-inf', string.format('%.3f', now), 'LIMIT', 0, most)
    for i = #found, 1, -1 do
        local record = redis.call('HGET', parked, found[i])
        local cut = record and string.find(record, '\n', 1, true)
        local list = cut and string.sub(record, 1, cut - 1)
        if not list or want > 0 or i < #found or redis.call('EXISTS', list) == 0 then
            if list then redis.call('RPUSH', list, string.sub(record, cut + 1)) end
            redis.call('ZREM', parked .. ':due', found[i])
            redis.call('HDEL', parked, found[i])
        else
            return
        end
    end
end

for i = lists + 1, #KEYS - 1 do
    -- A read makes the server tell us when something is parked for an earlier time.
    local first = redis.call('ZRANGE', KEYS[i] .. ':due', 0, 0, 'WITHSCORES')
    if first[2] and tonumber(first[2]) <= now then
        bring(KEYS[i])
        first = redis.call('ZRANGE', KEYS[i] .. ':due', 0, 0, 'WITHSCORES')
    end
    if first[2] then
        local wait = math.max(math.ceil((tonumber(first[2]) - now) * 1000), 0)
        if reply[2] < 0 or wait < reply[2] then reply[2] = wait end
    end
end
reply[3] = redis.call('GET', KEYS[#KEYS]) or ''

local expiry = string.format('%.3f', now + tonumber(ARGV[4]))
local values, scores = {}, {}
for level = 1, want > 0 and lists or 0, width do
    local open = {}
    for i = level, level + width - 1 do open[#open + 1] = i end
    while want > 0 and #open > 0 do
        local share = fair and math.ceil(want / #open) or want
        local more = {}
        for _, i in ipairs(open) do
            local ask = math.min(share, want)
            local got = ask > 0 and redis.call('RPOP', KEYS[i], ask)
            if got then
                want = want - #got
                reply[#reply + 1] = i
                reply[#reply + 1] = got
                local suffix = ARGV[6 + i]
                for _, payload in ipairs(got) do
                    if suffix ~= '' then
                        local tag = lease .. number
                        values[#values + 1] = tag
                        values[#values + 1] = '[' .. payload .. suffix
                        scores[#scores + 1] = expiry
                        scores[#scores + 1] = tag
                    end
                    number = number + 1
                end
                if #got == ask then more[#more + 1] = i end
            end
        end
        open = more
    end
    if want == 0 then break end
end
for from = 1, #values, 1000 do
    local to = math.min(from + 999, #values)
    redis.call('HSET', unacked, unpack(values, from, to))
    redis.call('ZADD', index, unpack(scores, from, to))
end
-- Not enough: a read makes the server tell us about the next write to any of these keys.
if want > 0 then redis.call('EXISTS', unpack(KEYS, 1, lists)) end
return reply
