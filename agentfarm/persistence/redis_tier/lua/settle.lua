-- One of several siblings is settled. The last one gets the advance of the superstep.
-- ARGV: header, entry, writes at the head    header: ep run ck ex wk tok id sn si out: how   wn[] taken   adv: token   ttl
-- answer: the verdict that refuses it | ok, released execution ('' for none), its place, 1 where this was the last
local H = cmsgpack.unpack(ARGV[1])
local m, bad = asked(H)
if bad then return { bad } end
local fields = entry(m, H, ARGV[2])
local names, known = split(m[9], ','), {}
for _, name in ipairs(names) do known[name] = true end
for i, name in ipairs(H.wn) do
  if not known[name] then names[#names + 1] = name end
  fields[#fields + 1] = 'w:' .. name fields[#fields + 1] = ARGV[2 + i]
end
for _, pair in ipairs({ 'wn', table.concat(names, ','), 'x:' .. H.ex, 'd', 'z:' .. H.ex, H.out }) do fields[#fields + 1] = pair end
if H.taken then fields[#fields + 1] = 'tk' fields[#fields + 1] = '1' end
set(fields)
local out = { 'ok', '', '', '' }
local width, t = tonumber(m[11]), id(now())
local held = tonumber(get('hn'))
if held <= width then
  local e = get('e:' .. held)
  redis.call('HSET', K, 'x:' .. e, 'r,' .. t, 'hn', held + 1)
  out[2] = e out[3] = get('p:' .. e)
end
if redis.call('HINCRBY', K, 'op', -1) == 0 then
  redis.call('HSET', K, 'x:' .. ZERO, table.concat({ 'l', H.wk, H.adv, t }, ','))
  out[4] = '1'
end
redis.call('PEXPIRE', K, H.ttl)
return out
