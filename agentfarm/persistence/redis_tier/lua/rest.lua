-- Of a wave's siblings that wait without a message, so many that are to have one now. ARGV: epoch, checkpoint, how many
-- answer: execution and place of each
local m = redis.call('HMGET', K, 'ep', 'st', 'at', 'wv', 'wd')
local out, from = {}, tonumber(m[4] or '')
if m[1] ~= ARGV[1] or m[2] ~= 'open' or m[3] ~= ARGV[2] or not from then return out end
local t = id(now())
for _ = 1, tonumber(ARGV[3]) do
  local e, i = waits(from, tonumber(m[5]))
  from = e and i + 1 or m[5] + 1
  if not e then break end
  redis.call('HSET', K, 'x:' .. e, 'r,' .. t)
  out[#out + 1] = e out[#out + 1] = get('p:' .. e)
end
redis.call('HSET', K, 'wv', from)
return out
