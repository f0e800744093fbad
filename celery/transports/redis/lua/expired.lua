-- Find deliveries whose holder is gone: ours past the end of their lease, others' past the visibility timeout.
-- ARGV: unacked, index, visibility timeout (s), limit.
-- Returns: tag, 1 if it had started (else 0), record, and so on.
local unacked, index, limit = ARGV[1], ARGV[2], tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local long_ago = string.format('%.3f', now - tonumber(ARGV[3]))
local found = {}

local function add(tag, score)
    local record = redis.call('HGET', unacked, tag)
    if record then
        local thousandth = tonumber(score) * 1000 % 1
        found[#found + 1] = tag
        found[#found + 1] = thousandth > 0.25 and thousandth < 0.75 and 1 or 0
        found[#found + 1] = record
    else
        redis.call('ZREM', index, tag) -- a peer restored it and left the entry behind
    end
end

local held = redis.call('ZRANGEBYSCORE', index, '-inf', long_ago, 'WITHSCORES', 'LIMIT', 0, limit)
for i = 1, #held, 2 do add(held[i], held[i + 1]) end
held = redis.call('ZRANGEBYSCORE', index, '(' .. long_ago, string.format('%.3f', now), 'WITHSCORES')
for i = 1, #held, 2 do
    if #found >= limit * 3 then break end
    if string.byte(held[i]) == 126 then add(held[i], held[i + 1]) end -- "~": a tag of ours
end
return found
