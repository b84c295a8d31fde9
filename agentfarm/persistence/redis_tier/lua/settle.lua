-- One of several siblings is settled. The last one gets the advance of the superstep.
-- ARGV: header, entry, writes at the head    header: ep run ck ex wk tok id sn si out: how   wn[] taken   adv: token   ttl
--       take: token under which the next sibling that has no message is leased to the caller, or ''   stops: of a wave, takes none
--       max: entries that Postgres may lack; then none is taken, nor one of another queue
-- answer: the verdict that refuses it | ok, an execution that is to have a message now ('' for none), its place, 1 where this was the last,
--         the sibling that was taken ('' for none), its call, whether the answer without an id is gone
local H = cmsgpack.unpack(ARGV[1])
local m, bad = asked(H)
if bad then return { bad } end
local width = tonumber(m[11])
local s = redis.call('HMGET', K, 'hn', 'wv', 'tk')
local held, from = tonumber(s[1]), tonumber(s[2])
local released = held <= width and get('e:' .. held) or nil
local fields, n = entry(m, H, ARGV[2], released)
local more = {}
for i, name in ipairs(H.wn) do
  fields[#fields + 1] = 'w:' .. name fields[#fields + 1] = ARGV[2 + i]
  local owner = string.sub(name, 1, 32)
  more[owner] = more[owner] or get('v:' .. owner) or ''
  if not (string.find(m[9], name, 1, true) or string.find(more[owner], name, 1, true)) then
    more[owner] = more[owner] == '' and name or more[owner] .. ',' .. name
  end
end
for owner, names in pairs(more) do fields[#fields + 1] = 'v:' .. owner fields[#fields + 1] = names end
for _, pair in ipairs({ 'x:' .. H.ex, 'd', 'z:' .. H.ex, H.out }) do fields[#fields + 1] = pair end
if H.taken then fields[#fields + 1] = 'tk' fields[#fields + 1] = '1' end
set(fields)
local out = { 'ok', '', '', '', '', '', '' }
local t = id(now())
if released then
  local stays = from and H.take ~= ''            -- in the wave, where it may be the one that is taken
  redis.call('HSET', K, 'x:' .. released, 'r,' .. t .. (stays and ',w' or ''), 'hn', held + 1)
  if stays then from = math.min(from, held) else out[2] = released out[3] = get('p:' .. released) end
end
if from and (H.take ~= '' or H.stops) and out[2] == '' then
  local e, i = waits(from, width)
  local place = e and get('p:' .. e)
  if e and H.take ~= '' and n - m[8] < H.max and split(place, '\0')[2] == split(get('p:' .. H.ex), '\0')[2] then
    redis.call('HSET', K, 'x:' .. e, table.concat({ 'l', H.wk, H.take, t }, ','))
    out[5] = e out[6] = get('y:' .. e) out[7] = s[3]
  elseif e then
    redis.call('HSET', K, 'x:' .. e, 'r,' .. t)
    out[2] = e out[3] = place
  end
  redis.call('HSET', K, 'wv', e and i + 1 or width + 1)
end
if redis.call('HINCRBY', K, 'op', -1) == 0 then
  redis.call('HSET', K, 'x:' .. ZERO, table.concat({ 'l', H.wk, H.adv, t }, ','))
  out[4] = '1'
end
redis.call('PEXPIRE', K, H.ttl)
return out
