-- For the healer. ARGV: epoch, milliseconds after which a message that nobody took is sent again, and of a lease that nobody renews
-- answer: none | its epoch, state, server's identity, number of the last entry, lo, then of each open execution: checkpoint, execution, place,
--         its worker ('' where none has it), 1 where its message is to be sent again, or its lease is over
local m = redis.call('HMGET', K, 'ep', 'st', 'sv', 'n', 'lo', 'at', 'wd')
if not m[1] then return { 'none' } end
local out = { m[1], m[2], m[3], m[4], m[5] }
if m[1] ~= ARGV[1] then return out end
local t, sent = now(), {}
local function tell(e)
  local x = split(get('x:' .. e) or '', ',')
  if x[1] == 'l' or x[1] == 'r' then
    local again = x[1] == 'r' and t - x[2] >= tonumber(ARGV[2]) or x[1] == 'l' and t - (x[5] or x[4]) >= tonumber(ARGV[3])
    if again and x[1] == 'r' then sent[#sent + 1] = 'x:' .. e sent[#sent + 1] = 'r,' .. id(t) end
    for _, value in ipairs({ m[6], e, get('p:' .. e) or '\0', x[1] == 'l' and x[2] or '', again and '1' or '' }) do out[#out + 1] = value end
  end
end
for i = 1, tonumber(m[7]) do tell(get('e:' .. i)) end
tell(ZERO)
set(sent)
return out
