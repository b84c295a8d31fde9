-- Lease an execution to the caller, and answer with all that it needs.
-- ARGV: header {ep run ck ex wk tok sv retake have_run have_head max all}   all: whoever's writes there are (a start enters the superstep again)
-- answer: busy | gone | lost: the hash is gone, or all of it but `ep`; an older one is here, or that of another server | stale | full: Postgres is behind, and must be given what it lacks first
--       | ok, graph and build, call, the run's spec ('' if known), whether the answer without an id is gone, whether it is of a wave ('' for no),
--         head, body ('' if known), number of blobs, their keys and bytes, number of writes, their names and rows
local H = cmsgpack.unpack(ARGV[1])
local f = 'x:' .. H.ex
local m = redis.call('HMGET', K, 'ep', 'run', 'st', 'at', f, 'n', 'lo', 'hd', 'rf', 'wn', 'tk', 'y:' .. H.ex, 'gb', 'sv', 'wv')
if not m[1] or tonumber(m[1]) < tonumber(H.ep) or m[1] == H.ep and not m[2] then return { 'lost' } end
if m[1] ~= H.ep or m[2] ~= H.run then return { 'stale' } end
if m[14] ~= H.sv then return { 'lost' } end
if m[3] ~= 'open' or m[4] ~= H.ck or not m[5] then return { 'gone' } end
local x = split(m[5], ',')
if x[1] == 'd' then return { 'gone' } end
if x[1] == 'h' or x[1] == 'l' and not (H.retake and x[2] == H.wk) then return { 'busy' } end
if m[6] - m[7] >= H.max then return { 'full' } end
redis.call('HSET', K, f, table.concat({ 'l', H.wk, H.tok, id(now()) }, ','))
local out = { 'ok', m[13], m[12], H.have_run and '' or get('sp'), m[11], m[15] or '', m[8] }
if H.have_head == m[8] then
  out[8] = '' out[9] = 0
else
  local keys, fields = split(m[9], '\0'), { 'hb' }
  for _, key in ipairs(keys) do fields[#fields + 1] = 'b:' .. key end
  local values = many(fields)
  out[8] = values[1] out[9] = #keys
  for i, key in ipairs(keys) do out[#out + 1] = key out[#out + 1] = values[i + 1] end
end
local names, fields = {}, {}
for _, name in ipairs(names_of(m[10], { H.ex, ZERO })) do
  local owner = string.sub(name, 1, 32)
  if H.all or owner == H.ex or owner == ZERO then names[#names + 1] = name fields[#fields + 1] = 'w:' .. name end
end
out[#out + 1] = #names
for i, row in ipairs(many(fields)) do out[#out + 1] = names[i] out[#out + 1] = row end
return out
