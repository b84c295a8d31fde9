-- A segment that says what is next, or that its run is over.
-- ARGV: header, entry, body of the new head, its new blobs, writes at the head, call and place of each next execution
-- header: ep run ck ex wk tok id sn si   hd: the new head, '' where it stays   rf[]: keys of all its blobs   nb[]: of those that are new
--         wn[]: names of writes   at nx[] wd: the superstep that is next, and how many of it may be worked on   lease: a token, or ''   max: entries
--         that Postgres may lack; then nothing is leased
--         sent[]: a wave: which of it have a message; empty: each
--         over: whether the run is   ttl
-- answer: ok | the verdict that refuses it; with ok, and with done: 1 where the first of the next is leased to the caller
local H = cmsgpack.unpack(ARGV[1])
local m, bad = asked(H)
if bad == 'done' then
  local x = split(get('x:' .. (H.nx[1] or '')), ',')
  return { bad, H.lease ~= '' and x[1] == 'l' and x[3] == H.lease and '1' or '' }
end
if bad then return { bad } end
local leases = H.lease ~= '' and m[7] - m[8] + 1 < H.max
local fields = entry(m, H, ARGV[2])
local gone, names, at = {}, {}, 4
local before = split(m[9], ',')
if H.ex == ZERO then
  local all = executions(tonumber(m[11]))
  before = names_of(m[9], all)
  for i, e in ipairs(all) do
    for _, kind in ipairs({ 'x:', 'y:', 'p:', 'z:', 'v:' }) do gone[#gone + 1] = kind .. e end
    if i > #H.nx and e ~= ZERO then gone[#gone + 1] = 'e:' .. i end
  end
end
for _, kind in ipairs({ 'x:', 'y:', 'p:' }) do gone[#gone + 1] = kind .. H.ex end
if H.hd ~= '' then
  local stays = {}
  for _, key in ipairs(H.rf) do stays[key] = true end
  for _, key in ipairs(split(m[10], '\0')) do if not stays[key] then gone[#gone + 1] = 'b:' .. key end end
  for _, name in ipairs(before) do gone[#gone + 1] = 'w:' .. name end
  for _, pair in ipairs({ 'hd', H.hd, 'hb', ARGV[3], 'rf', table.concat(H.rf, '\0') }) do fields[#fields + 1] = pair end
else
  names = before
end
for _, key in ipairs(H.nb) do fields[#fields + 1] = 'b:' .. key fields[#fields + 1] = ARGV[at] at = at + 1 end
local known, kept = {}, {}
for _, name in ipairs(names) do known[name] = true end
for _, name in ipairs(H.wn) do
  if not known[name] then names[#names + 1] = name end
  kept['w:' .. name] = true
  fields[#fields + 1] = 'w:' .. name fields[#fields + 1] = ARGV[at] at = at + 1
end
fields[#fields + 1] = 'wn' fields[#fields + 1] = table.concat(names, ',')
if #H.nx > 0 then
  local t = id(now())
  local wave = #H.sent > 0 and 2 or ''
  for _, pair in ipairs({ 'at', H.at, 'wd', #H.nx, 'op', #H.nx, 'tk', '', 'hn', H.wd + 1, 'wv', wave }) do fields[#fields + 1] = pair end
  for i, e in ipairs(H.nx) do
    local x = 'r,' .. t
    if i == 1 and leases then x = table.concat({ 'l', H.wk, H.lease, t }, ',')
    elseif i > H.wd then x = 'h'
    elseif H.sent[i] == false then x = x .. ',w' end
    for _, pair in ipairs({ 'e:' .. i, e, 'x:' .. e, x, 'y:' .. e, ARGV[at], 'p:' .. e, ARGV[at + 1] }) do fields[#fields + 1] = pair end
    kept['x:' .. e] = true kept['y:' .. e] = true kept['p:' .. e] = true
    at = at + 2
  end
end
if H.over then
  for _, pair in ipairs({ 'st', 'ending', 'wd', 0 }) do fields[#fields + 1] = pair end
end
set(fields)
local left = {}
for _, field in ipairs(gone) do if not kept[field] then left[#left + 1] = field end end
del(left)
redis.call('PEXPIRE', K, H.ttl)
return { 'ok', leases and '1' or '' }
