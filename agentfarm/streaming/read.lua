-- A page of a run's stream: what comes after an entry, as much as fits. At least one entry, whatever its size.
--
-- KEYS[1]  the stream
-- ARGV[1]  id of the entry after which to read
-- ARGV[2]  "seen": the reader has been given that entry, so that it must be there; anything else: it may be no entry's
-- ARGV[3]  entries, at most
-- ARGV[4]  bytes of their data, at most
--
-- answers  {whether there is more (1 or 0), entries as XRANGE answers them}; "gone" when the entry is no longer kept, and
--          so perhaps none of those that came after it
local key, after, left, room = KEYS[1], ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])

if ARGV[2] == 'seen' and #redis.call('XRANGE', key, after, after) == 0 then
    return 'gone'
end

-- Some at a time: what does not fit is read in vain, and may be large.
local STEP = 8

local page = {}
while left > 0 do
    local count = math.min(left, STEP)
    local entries = redis.call('XRANGE', key, '(' .. after, '+', 'COUNT', count)
    for _, entry in ipairs(entries) do
        room = room - #entry[2][4]
        if room < 0 and #page > 0 then
            return {1, page}
        end
        page[#page + 1] = entry
    end
    if #entries < count then
        return {0, page}
    end
    left, after = left - count, entries[count][1]
end
return {1, page}
