-- Postgres has all entries up to this one. ARGV: epoch, number, '' or, of a run that has ended or was recalled, for how many milliseconds that is remembered
local m = redis.call('HMGET', K, 'ep', 'lo')
if ARGV[3] ~= '' then return tonumber(m[1] or 0) > tonumber(ARGV[1]) and 0 or remember(ARGV[1], ARGV[3]) end
local lo, upto = tonumber(m[2] or ''), tonumber(ARGV[2])
if m[1] ~= ARGV[1] or not lo or upto <= lo then return 0 end
local gone = {}
for n = lo + 1, upto do
  gone[#gone + 1] = 'q:' .. n
  gone[#gone + 1] = 'i:' .. (n - 1)
end
del(gone)
redis.call('HSET', K, 'lo', upto)
return upto - lo
