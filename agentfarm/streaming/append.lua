-- Add the events of one batch to a run's stream and wake its readers: all of the batch, or none of it.
--
-- KEYS[1]  the stream; also the name of the channel that wakes its readers
-- ARGV[1]  entries to keep, roughly
-- ARGV[2]  seconds until the stream expires, from now
-- ARGV[3]  token of this batch, unique
-- ARGV[4]  "again": an earlier attempt may have added it; anything else: it is new
-- ARGV[5…] name, data, name, data, …
--
-- answers  the id of the last entry; "closed" when the run's stream has its end; "there" when an earlier attempt did it
local key, keep, seconds, token = KEYS[1], ARGV[1], ARGV[2], ARGV[3]

local last = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
if last and last[2][2] == 'end' then
    return 'closed'
end
if ARGV[4] == 'again' then
    -- A batch is at most 500 events, and others may have written meanwhile: 5,000 looks far enough back.
    for _, entry in ipairs(redis.call('XREVRANGE', key, '+', '-', 'COUNT', 5000)) do
        if entry[2][6] == token then
            return 'there'
        end
    end
end

local id
for i = 5, #ARGV, 2 do
    if i + 2 > #ARGV then
        id = redis.call('XADD', key, 'MAXLEN', '~', keep, '*', 'n', ARGV[i], 'd', ARGV[i + 1], 'b', token)
    else
        id = redis.call('XADD', key, 'MAXLEN', '~', keep, '*', 'n', ARGV[i], 'd', ARGV[i + 1])
    end
end
redis.call('EXPIRE', key, seconds)
redis.call('PUBLISH', key, id)
return id
