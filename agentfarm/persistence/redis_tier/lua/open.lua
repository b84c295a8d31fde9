-- Begin a run, its start leased to the caller. ARGV: header, run's spec, body of the head, its blobs (in the order of rf), writes.
-- header: ep run sv wk tok hd rf[] wn[] gb ttl     answer: ok | known: this epoch was opened before | ended: it was, and has ended | stale: a later one was
local H = cmsgpack.unpack(ARGV[1])
local m = redis.call('HMGET', K, 'ep', 'x:' .. H.run, 'run')
if m[1] then
  if m[1] == H.ep and not m[3] then return { 'ended' } end
  if m[1] == H.ep then return { split(m[2], ',')[3] == H.tok and 'ok' or 'known' } end
  if tonumber(m[1]) > tonumber(H.ep) then return { 'stale' } end
  redis.call('HSET', K, 'ep', m[1])               -- first of all: a full server refuses it
  redis.call('UNLINK', K)
end
local fields = { 'ep', H.ep, 'run', H.run, 'st', 'open', 'sv', H.sv, 'n', 0, 'lo', 0, 'last', '', 'hd', H.hd, 'hb', ARGV[3], 'rf', table.concat(H.rf, '\0'),
                 'wn', table.concat(H.wn, ','), 'sp', ARGV[2], 'gb', H.gb, 'at', ZERO, 'wd', 1, 'op', 1, 'tk', '', 'hn', 2, 'wv', '', 'e:1', H.run,
                 'x:' .. H.run, table.concat({ 'l', H.wk, H.tok, id(now()) }, ','), 'y:' .. H.run, '', 'p:' .. H.run, '\0' }
for i, key in ipairs(H.rf) do fields[#fields + 1] = 'b:' .. key fields[#fields + 1] = ARGV[3 + i] end
for i, name in ipairs(H.wn) do fields[#fields + 1] = 'w:' .. name fields[#fields + 1] = ARGV[3 + #H.rf + i] end
set(fields)
redis.call('PEXPIRE', K, H.ttl)
return { 'ok' }
