-- These runs are over in Postgres: who commits for one of them finds nothing. ARGV: for how many milliseconds that is remembered, if any; runs
local m = redis.call('HMGET', K, 'ep', 'run')
for i = 2, #ARGV do
  if m[2] == ARGV[i] then
    if ARGV[1] == '' then return redis.call('UNLINK', K) end
    return over(m[1], ARGV[1])
  end
end
return 0
