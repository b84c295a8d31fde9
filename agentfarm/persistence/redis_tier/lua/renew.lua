-- Its holder works on it. ARGV: epoch, checkpoint, execution, token, ttl
local m = redis.call('HMGET', K, 'ep', 'at', 'x:' .. ARGV[3])
local x = split(m[3], ',')
if m[1] ~= ARGV[1] or m[2] ~= ARGV[2] or x[1] ~= 'l' or x[3] ~= ARGV[4] then return 0 end
-- First, since a full server refuses no command of a script that has written: who works must not seem to be lost.
redis.call('PEXPIRE', K, ARGV[5])
return redis.call('HSET', K, 'x:' .. ARGV[3], table.concat({ 'l', x[2], x[3], x[4], id(now()) }, ','))
