-- All that the advance of a superstep needs. ARGV: header {ep run ck tok have_head}
-- answer: fenced | ok, body ('' if known), number of blobs, their keys and bytes, number of writes, their names and rows, then settled executions and how
local H = cmsgpack.unpack(ARGV[1])
local m = redis.call('HMGET', K, 'ep', 'run', 'at', 'x:' .. ZERO, 'rf', 'wn', 'wd')
if m[1] ~= H.ep or m[2] ~= H.run or m[3] ~= H.ck or split(m[4], ',')[3] ~= H.tok then return { 'fenced' } end
local out = { 'ok', '', 0 }
if not H.have_head then
  local keys, fields = split(m[5], '\0'), { 'hb' }
  for _, key in ipairs(keys) do fields[#fields + 1] = 'b:' .. key end
  local values = many(fields)
  out[2] = values[1] out[3] = #keys
  for i, key in ipairs(keys) do out[#out + 1] = key out[#out + 1] = values[i + 1] end
end
local all = executions(tonumber(m[7]))
local names, fields = names_of(m[6], all), {}
for _, name in ipairs(names) do fields[#fields + 1] = 'w:' .. name end
out[#out + 1] = #names
for i, row in ipairs(many(fields)) do out[#out + 1] = names[i] out[#out + 1] = row end
local how = {}
for i, e in ipairs(all) do how[i] = 'z:' .. e end
for i, z in ipairs(many(how)) do
  if z then out[#out + 1] = all[i] out[#out + 1] = z end
end
return out
