-- Acknowledge what is named, then lease up to `want` messages, in one step.
-- KEYS: the lists, priority by priority, within a priority in the order of the queues.
-- ARGV: unacked, index, lease, ttl (s), queues a priority, fair (1/0), one suffix a key ("" = do not record),
--       first number, want, acknowledged tags...
-- Returns: {tags that were no longer ours}, then pairs: number of the key, {payloads}.
local unacked, index, lease = ARGV[1], ARGV[2], ARGV[3]
local width, fair = tonumber(ARGV[5]), ARGV[6] == '1'
local number, want = tonumber(ARGV[7 + #KEYS]), tonumber(ARGV[8 + #KEYS])
local lost = {}
for from = 9 + #KEYS, #ARGV, 1000 do
    local to = math.min(from + 999, #ARGV)
    if redis.call('ZREM', index, unpack(ARGV, from, to)) == to - from + 1 then
        redis.call('HDEL', unacked, unpack(ARGV, from, to))
    else
        for i = from, to do
            if redis.call('HDEL', unacked, ARGV[i]) == 0 then lost[#lost + 1] = ARGV[i] end
        end
    end
end
local reply = {lost}
if want == 0 then return reply end

local time = redis.call('TIME')
local expiry = string.format('%.3f', time[1] + time[2] / 1000000 + tonumber(ARGV[4]))
local values, scores = {}, {}
for level = 1, #KEYS, width do
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
if want > 0 then redis.call('EXISTS', unpack(KEYS)) end
return reply
