-- What a node saves while it runs: results of @task calls, checkpoints of subgraphs. ARGV: header {ep run ck ex tok id sn si ttl max}, entry
-- answer: ok, the entry's number | the verdict that refuses it | full: Postgres is behind, and must be given what it lacks first
local H = cmsgpack.unpack(ARGV[1])
local m, bad = asked(H)
if bad then return { bad } end
if m[7] - m[8] >= H.max then return { 'full' } end
local fields, n = entry(m, H, ARGV[2])
set(fields)
redis.call('PEXPIRE', K, H.ttl)
return { 'ok', id(n) }
