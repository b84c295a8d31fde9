-- For the healer. ARGV: epoch
-- answer: none | its epoch, state, server's identity, number of the last entry, lo, then of each open execution: checkpoint, execution, place,
--         its worker ('' where none has it), milliseconds since its message was sent, or since it was leased or renewed, and how often its message
--         was sent again: -1 where it has none, but waits for who has settled a sibling
local m = redis.call('HMGET', K, 'ep', 'st', 'sv', 'n', 'lo', 'at', 'wd')
if not m[1] then return { 'none' } end
if not m[2] then return { m[1], 'ended', '', 0, 0 } end
local out = { m[1], m[2], m[3], m[4], m[5] }
if m[1] ~= ARGV[1] then return out end
local t = now()
local function tell(e)
  if not e then return end                       -- of a run that is over
  local x = split(get('x:' .. e) or '', ',')
  if x[1] ~= 'l' and x[1] ~= 'r' then return end
  local worker, since, times = '', x[2], x[3] == 'w' and -1 or tonumber(x[3] or '') or 0
  if x[1] == 'l' then worker, since, times = x[2], x[5] or x[4], 0 end
  for _, value in ipairs({ m[6], e, get('p:' .. e) or '\0', worker, id(t - since), times }) do out[#out + 1] = value end
end
for i = 1, tonumber(m[7]) do tell(get('e:' .. i)) end
tell(ZERO)
return out
