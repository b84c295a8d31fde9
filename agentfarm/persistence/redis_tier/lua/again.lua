-- The message of an execution that nobody took is sent again. ARGV: epoch, checkpoint, execution
-- answer: 1 where it is to be
local m = redis.call('HMGET', K, 'ep', 'st', 'at', 'x:' .. ARGV[3])
local x = split(m[4], ',')
if m[1] ~= ARGV[1] or m[2] ~= 'open' or m[3] ~= ARGV[2] or x[1] ~= 'r' then return 0 end
local times = math.min((tonumber(x[3] or '') or 0) + 1, 6)
local done = redis.pcall('HSET', K, 'x:' .. ARGV[3], table.concat({ 'r', id(now()), times }, ','))
return type(done) == 'table' and 0 or 1         -- a full server refuses it, and whoever would take it as well
