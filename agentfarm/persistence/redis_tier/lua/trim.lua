-- Postgres has all entries up to this one. ARGV: epoch, number, '1' where the run is over or recalled: then nothing is left
if get('ep') ~= ARGV[1] then return 0 end
if ARGV[3] == '1' then return redis.call('UNLINK', K) end
local lo, upto = tonumber(get('lo')), tonumber(ARGV[2])
if upto <= lo then return 0 end
local gone = {}
for n = lo + 1, upto do
  gone[#gone + 1] = 'q:' .. n
  gone[#gone + 1] = 'i:' .. (n - 1)
end
del(gone)
redis.call('HSET', K, 'lo', upto)
return upto - lo
