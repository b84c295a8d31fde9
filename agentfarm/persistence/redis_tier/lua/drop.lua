-- Nothing is left of a run that was opened in the name of another process. ARGV: run
if get('run') == ARGV[1] then return redis.call('UNLINK', K) end
return 0
