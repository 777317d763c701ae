package redisbus

import "github.com/redis/go-redis/v9"

// Each script touches keys of one slot. Times are Redis's own, in milliseconds, so that nodes need not agree on theirs.
const luaNow = "local t = redis.call('TIME')\nlocal now = t[1] * 1000 + math.floor(t[2] / 1000)\n"

// luaMove notes that what lies in a place is moved from there, and ends the script where that is noted already: whoever got
// no answer asks again, and whoever takes the place over from a process that died looks here first.
const luaMove = `
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZADD', KEYS[1], 'NX', now + ARGV[2], ARGV[1]) == 0 then return 0 end`

// What declareScript answers.
const (
	declaredNew = iota
	declaredJoined
	declaredExclusive
	declaredOther
)

type scripts struct {
	declare, renew, leave, remove, register, retire *redis.Script
	group, count, retain, quit, delay, back, due    *redis.Script
	unlock, relock                                  *redis.Script
}

func newScripts() scripts {
	return scripts{
		// KEYS queues readers version removed; ARGV queue record reader ttl durable exclusive.
		declare: redis.NewScript(luaNow + `
local old = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[3]) -- of an attempt whose answer was lost
local readers = redis.call('ZCOUNT', KEYS[2], now, '+inf')
local joined = 0
if old then
  local record = cjson.decode(old)
  if record.durable or readers > 0 then
    if tostring(record.durable) ~= ARGV[5] then return 3 end
    if readers > 0 and (record.exclusive or ARGV[6] == 'true') then return 2 end
    joined = 1
  end
end
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
redis.call('ZREM', KEYS[4], ARGV[1])
if old ~= ARGV[2] then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('INCR', KEYS[3])
end
return joined`),
		// KEYS queues readers version removed; ARGV queue record reader ttl. 0: the queue was deleted.
		renew: redis.NewScript(luaNow + `
if redis.call('ZSCORE', KEYS[4], ARGV[1]) then return 0 end
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then redis.call('INCR', KEYS[3]) end
redis.call('ZADD', KEYS[2], now + ARGV[4], ARGV[3])
return 1`),
		// KEYS queues readers version; ARGV queue reader durable. 1: the queue went with its last reader.
		leave: redis.NewScript(luaNow + `
redis.call('ZREM', KEYS[2], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now)
if ARGV[3] == 'true' or redis.call('ZCARD', KEYS[2]) > 0 then return 0 end
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then redis.call('INCR', KEYS[3]) end
return 1`),
		// KEYS queues readers version removed; ARGV queue.
		remove: redis.NewScript(luaNow + `
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', now - 3600000)
redis.call('ZADD', KEYS[4], now, ARGV[1])
redis.call('DEL', KEYS[2])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 1 then redis.call('INCR', KEYS[3]) end
return 1`),
		// KEYS topics news; ARGV topic. 1: it is new.
		register: redis.NewScript(luaNow + `
if redis.call('ZADD', KEYS[1], now, ARGV[1]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MINID', '~', now - 600000, '*', 'topic', ARGV[1])
return 1`),
		// KEYS topics; ARGV topic age. Forgets a topic that nobody has published to for so long.
		retire: redis.NewScript(luaNow + `
local last = redis.call('ZSCORE', KEYS[1], ARGV[1])
if last and tonumber(last) < now - ARGV[2] then return redis.call('ZREM', KEYS[1], ARGV[1]) end
return 0`),
		// KEYS stream; ARGV group position. The position at which the group was made; "" when it was there.
		group: redis.NewScript(`
local at, read = ARGV[2], nil
if redis.call('EXISTS', KEYS[1]) == 0 then
  if at == '$' then at, read = '0-0', 0 end
else
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  local last, added
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
    if info[i] == 'entries-added' then added = info[i + 1] end
  end
  if at == '$' then at, read = last, added end
end
local made
if read then made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], at, 'MKSTREAM', 'ENTRIESREAD', read)
else made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], at, 'MKSTREAM') end
if made.err then
  if string.find(made.err, 'BUSYGROUP') then return '' end
  return made
end
return at`),
		// KEYS stream; ARGV position most. How many entries come after it, up to so many, and how many there are in all.
		count: redis.NewScript(`return {#redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2]), redis.call('XLEN', KEYS[1])}`),
		// KEYS stream; ARGV grace, age, the groups that must be there. Trims what all groups have handled, and returns each
		// group with the position up to which it has. A group that should be there and is not stops the trimming. A stream
		// that is empty and that no group reads is deleted when nothing came for so long: its count of what was added, by
		// which who was away sees what it has missed, goes with it.
		retain: redis.NewScript(luaNow + `
if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
local found, out = {}, {}
local cutms, cutseq = now - ARGV[1], 0
local function split(id)
  local ms, seq = string.match(id, '^(%d+)-(%d+)$')
  return tonumber(ms), tonumber(seq)
end
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local name, last, pending
  for i = 1, #info, 2 do
    if info[i] == 'name' then name = info[i + 1] end
    if info[i] == 'last-delivered-id' then last = info[i + 1] end
    if info[i] == 'pending' then pending = info[i + 1] end
  end
  found[name] = true
  local ms, seq = split(last)
  local handled = last
  if pending > 0 then
    ms, seq = split(redis.call('XPENDING', KEYS[1], name)[2])
    if seq > 0 then handled = string.format('%.0f-%.0f', ms, seq - 1)
    elseif ms > 0 then handled = string.format('%.0f-18446744073709551615', ms - 1)
    else handled = '0-0' end
  else
    seq = seq + 1
  end
  out[#out + 1] = name
  out[#out + 1] = handled
  if ms < cutms or ms == cutms and seq < cutseq then cutms, cutseq = ms, seq end
end
for i = 3, #ARGV do
  if not found[ARGV[i]] then return out end
end
redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-%.0f', cutms, cutseq))
if #out == 0 and redis.call('XLEN', KEYS[1]) == 0 then
  local info = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' and split(info[i + 1]) < now - ARGV[2] then redis.call('DEL', KEYS[1]) end
  end
end
return out`),
		// KEYS stream; ARGV group idle [consumer]. Removes the consumer, or all idle for so long, if nothing is pending.
		quit: redis.NewScript(`
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
local removed = 0
for _, info in ipairs(consumers) do
  local name, pending, idle
  for i = 1, #info, 2 do
    if info[i] == 'name' then name = info[i + 1] end
    if info[i] == 'pending' then pending = info[i + 1] end
    if info[i] == 'idle' then idle = info[i + 1] end
  end
  if pending == 0 and (ARGV[3] and name == ARGV[3] or not ARGV[3] and idle > tonumber(ARGV[2])) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], name)
    removed = removed + 1
  end
end
return removed`),
		// KEYS moved delayed; ARGV place keep delay, the entry's fields. Has what lies in a place come again later, unless it
		// was moved from there already.
		delay: redis.NewScript(luaNow + luaMove + `
local entry = {ARGV[1]}
for i = 4, #ARGV do entry[i - 2] = ARGV[i] end
redis.call('ZADD', KEYS[2], now + ARGV[3], cmsgpack.pack(entry))
return 1`),
		// KEYS moved own; ARGV place keep, the entry's fields. Has what lies in a place come again now, likewise.
		back: redis.NewScript(luaNow + luaMove + `
redis.call('XADD', KEYS[2], '*', unpack(ARGV, 3))
return 1`),
		// KEYS delayed own. Moves what is due, up to 100; in how many ms the next is due, -1 for none.
		due: redis.NewScript(luaNow + `
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 100)) do
  local entry = cmsgpack.unpack(member)
  redis.call('XADD', KEYS[2], '*', unpack(entry, 2))
  redis.call('ZREM', KEYS[1], member)
end
local first = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #first == 0 then return -1 end
return math.max(0, first[2] - now)`),
		// KEYS lock; ARGV token.
		unlock: redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0`),
		// KEYS lock; ARGV token ttl.
		relock: redis.NewScript(`if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end return 0`),
	}
}
