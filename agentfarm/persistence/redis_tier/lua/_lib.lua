-- In front of every script of this folder. One hash holds all of a thread that a run has in Redis: it is there whole, or it is not.
--   ep run st sv n lo   epoch, run, open|ending, identity of the server, number of the last entry, of the last that Postgres has
--   last                id of the last entry: the same commit made twice is made once
--   hd hb rf b:<key>    head, its body, the keys of its blobs (joined by NUL), the blobs
--   wn w:<name>         names (joined by commas) and rows of the writes at the head; a name begins with the execution that they belong to
--   v:<execution>       names of what siblings have written since the superstep began, by whom it belongs to: as long as one sibling's, however
--                       many there are
--   sp gb               the run's spec; its graph and build (joined by NUL)
--   at wd op tk e:<i>   the superstep: its checkpoint, how many executions, how many are not settled, whether the answer without an id
--                       is gone, and the executions in order; hn: the first that is held back
--   wv                  the superstep is a wave: of its executions from this one on, some may have no message. '' where it is none
--   x:<execution>       r,<when its message was sent>[,w: it has none, but waits for who has settled a sibling; or how often it was sent again]
--                       | l,<worker>,<token>,<since>,<renewed> | h | d; that of ZERO is the superstep's advance
--   y: p: z:<execution> its call, its node and queue (joined by NUL), how it was settled
--   q:<n> i:<n>         an entry for Postgres, and its id,<worker>,<begun>,<over>[,<sibling that it let go>]; i of the last that Postgres
--                       has is kept
-- Of a run that has ended, or was recalled, `ep` alone is left for a while: whoever was about to begin it finds that it is too late.
-- Times are milliseconds of Redis' clock. A script writes nothing before its first HSET, which a full server refuses: it is done whole or
-- not at all.
local K = KEYS[1]
local ZERO = '00000000000000000000000000000000'
local function now() local t = redis.call('TIME') return t[1] * 1000 + math.floor(t[2] / 1000) end
local function get(field) return redis.call('HGET', K, field) end
local function split(text, by)
  local out, from = {}, 1
  if not text or text == '' then return out end
  while true do
    local at = string.find(text, by, from, true)
    if not at then out[#out + 1] = string.sub(text, from) return out end
    out[#out + 1] = string.sub(text, from, at - 1)
    from = at + 1
  end
end
local function set(pairs)                        -- unpack takes about 8,000
  for i = 1, #pairs, 4000 do redis.call('HSET', K, unpack(pairs, i, math.min(i + 3999, #pairs))) end
end
local function del(fields)
  for i = 1, #fields, 4000 do redis.call('HDEL', K, unpack(fields, i, math.min(i + 3999, #fields))) end
end
local function many(fields)
  local out = {}
  for i = 1, #fields, 4000 do
    for _, value in ipairs(redis.call('HMGET', K, unpack(fields, i, math.min(i + 3999, #fields)))) do out[#out + 1] = value end
  end
  return out
end
local function remember(epoch, ms)                -- UNLINK first: after it a full server takes what is written
  redis.call('UNLINK', K)
  redis.call('HSET', K, 'ep', epoch)
  return redis.call('PEXPIRE', K, ms)
end
local function id(ms) return string.format('%.0f', ms) end
-- Whether the caller holds the lease: nil, or the verdict that refuses it.
-- lost: the hash is gone, or an older one is here. stale: a later epoch, or all that is left of this one is `ep`. done: this entry was made already. forgot: an older memory, without
-- what this execution has saved before (sn, si: number and id of the last such entry)
local function refused(H, m)
  if not m[1] or tonumber(m[1]) < tonumber(H.ep) then return 'lost' end
  if m[1] ~= H.ep or m[2] ~= H.run then return 'stale' end
  if m[3] == H.id then return 'done' end
  if m[4] ~= 'open' then return 'over' end
  local x = split(m[5], ',')
  if m[6] ~= H.ck or x[1] ~= 'l' or x[3] ~= H.tok then return 'fenced' end
  if H.sn > 0 and (tonumber(m[7]) < H.sn or tonumber(m[8]) < H.sn and split(get('i:' .. H.sn), ',')[1] ~= H.si) then return 'forgot' end
  return nil
end
local function asked(H)
  local m = redis.call('HMGET', K, 'ep', 'run', 'last', 'st', 'x:' .. H.ex, 'at', 'n', 'lo', 'wn', 'rf', 'wd')
  return m, refused(H, m)
end
-- The entry that every commit leaves, as the first of the fields to be set.
local function entry(m, H, bytes, released)
  local x, n = split(m[5], ','), m[7] + 1
  return { 'n', n, 'last', H.id, 'q:' .. n, bytes, 'i:' .. n, table.concat({ H.id, x[2], x[4], id(now()), released }, ',') }, n
end
-- The first execution of a wave, from `from` on, that waits without a message, and its place among the others.
local function waits(from, width)
  for i = from, width do
    local e = get('e:' .. i)
    if split(get('x:' .. e), ',')[3] == 'w' then return e, i end
  end
end
-- Names of writes at the head: those from before the superstep, and what belongs to these executions since.
local function names_of(before, executions)
  local names, fields = split(before, ','), {}
  for i, e in ipairs(executions) do fields[i] = 'v:' .. e end
  for _, more in ipairs(many(fields)) do
    for _, name in ipairs(split(more, ',')) do names[#names + 1] = name end
  end
  return names
end
-- The executions of the superstep, and ZERO, to whom belongs what is the run's own.
local function executions(width)
  local fields = {}
  for i = 1, width do fields[i] = 'e:' .. i end
  local found = many(fields)
  found[#found + 1] = ZERO
  return found
end
-- Entries that Postgres lacks, so many bytes at least, and no more than unpack takes: lo, id of the last that it has, then number, id line and bytes of each.
local function waiting(limit)
  local m = redis.call('HMGET', K, 'n', 'lo')
  local lo = tonumber(m[2])
  local out, size = { m[2], split(get('i:' .. m[2]) or '', ',')[1] or '' }, 0
  for n = lo + 1, tonumber(m[1]) do
    local two = redis.call('HMGET', K, 'i:' .. n, 'q:' .. n)
    out[#out + 1] = n out[#out + 1] = two[1] out[#out + 1] = two[2]
    size = size + #two[2]
    if size >= limit or #out > 3000 then break end
  end
  return out
end
