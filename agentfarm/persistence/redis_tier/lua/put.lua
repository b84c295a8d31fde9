-- What a node saves while it runs: results of @task calls, checkpoints of subgraphs. ARGV: header {ep run ck ex tok id sn si ttl}, entry
-- answer: ok, the entry's number | the verdict that refuses it
local H = cmsgpack.unpack(ARGV[1])
local m, bad = asked(H)
if bad then return { bad } end
local fields, n = entry(m, H, ARGV[2])
set(fields)
redis.call('PEXPIRE', K, H.ttl)
return { 'ok', id(n) }
