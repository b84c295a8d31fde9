-- What Postgres lacks. ARGV: bytes, about so many at once; an epoch, whose run is to be recalled: nobody commits there any more; ttl, as long as
-- it lacks any
-- answer: none | epoch, run, number of the last entry, then lo, the id of the last that Postgres has, and number, id line, bytes of each
local m = redis.call('HMGET', K, 'ep', 'run', 'st', 'n', 'lo')
if not m[2] then return { 'none' } end
-- A full server refuses that, and so whatever would be committed: what it has is worth having all the same.
if m[1] == ARGV[2] and m[3] == 'open' then redis.pcall('HSET', K, 'st', 'recalled') end
if m[4] ~= m[5] then redis.call('PEXPIRE', K, ARGV[3]) end
return { m[1], m[2], m[4], unpack(waiting(tonumber(ARGV[1]))) }
