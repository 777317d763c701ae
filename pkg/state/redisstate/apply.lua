-- Makes changes, each on one key: all or none of them, or each by itself.
--
-- KEYS  one hash per change
-- ARGV  all or none: the time; then five per change: "save" or "delete"; the condition: "always", "absent" or an ETag after "=";
--       the expiry: "keep", "never" or milliseconds; a nonce; the data
--       each by itself, one after the other: "each"; then six per change: the time, and those five
--       A time that is empty: the caller has gone, and nothing is done for it
--
-- Returns one answer per change: the new version of a save that was made, or "done" (a delete), "skipped" (a delete of what
-- is absent, or nothing was done because of another change, or for a caller who has gone), "conflict", "missing" (a conflict
-- because the key is absent), "corrupt", or after "-" the error with which the server refused it. An error of the whole script
-- means that nothing was done.
local call, pcall = redis.call, redis.pcall
local wrote = false -- something

-- judge returns "holds" or why the change is not made, and what a save has to know: the version before, 0 for a new key, and
-- the time of creation, if the hash has it. It writes nothing.
local function judge(key, operation, condition)
  if operation == "delete" and condition == "always" then
    return "holds"
  end
  local fields = pcall("HMGET", key, "version", "nonce", "createdAt")
  if fields.err then
    return string.find(fields.err, "WRONGTYPE", 1, true) and "corrupt" or "-" .. fields.err -- not a hash
  end
  local version, nonce = fields[1], fields[2]
  if not version then
    if call("EXISTS", key) == 1 then
      return "corrupt"
    elseif condition == "always" or condition == "absent" then
      return "holds", 0
    end
    return "missing"
  elseif version == "" or #version > 15 or string.find(version, "%D") then
    return "corrupt"
  elseif condition == "always" or condition == "=" .. (nonce and version .. "-" .. nonce or version) then
    return "holds", version, fields[3]
  end
  return "conflict"
end

-- after is the server's time in so many milliseconds, in milliseconds since 1970.
local function after(ttl)
  local time = call("TIME")
  return string.format("%.0f", time[1] * 1000 + math.floor(time[2] / 1000) + ttl)
end

-- write makes the first write of a change, which the server may refuse: then it returns why. When nothing was written before,
-- the script ends with the error, as clients know what to do about those. Writes after the first are not refused.
local function write(...)
  if not wrote then
    local answer = call(...)
    wrote = true
    return answer
  end
  local answer = pcall(...)
  if type(answer) == "table" then
    return nil, "-" .. answer.err
  end
  return answer
end

-- save writes when the key expires into the hash too, with the version for which that holds, so that a reader needs one
-- command.
local function save(now, key, before, created, expiry, nonce, data)
  local version = string.format("%d", before + 1)
  local at = "never"
  if expiry == "keep" then
    local ttl = before ~= 0 and call("PTTL", key) or -1
    if ttl >= 0 then
      at = after(ttl)
    end
  elseif expiry ~= "never" then
    at = after(tonumber(expiry))
  end
  local _, refused
  if created then
    _, refused = write("HSET", key, "data", data, "version", version, "nonce", nonce, "updatedAt", now, "expiry", version .. " " .. at)
  else
    _, refused = write("HSET", key, "data", data, "version", version, "nonce", nonce, "updatedAt", now, "expiry", version .. " " .. at, "createdAt", now)
  end
  if refused then
    return refused
  elseif expiry == "never" then
    if before ~= 0 then
      call("PERSIST", key)
    end
  elseif expiry ~= "keep" then
    call("PEXPIREAT", key, at)
  end
  return version
end

-- change makes the change whose operation is the argument at the index.
local function change(now, key, at, before, created)
  if ARGV[at] == "save" then
    return save(now, key, before, created, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
  end
  local deleted, refused = write("DEL", key)
  return refused or deleted == 1 and "done" or "skipped"
end

local now = ARGV[1]
if now == "" then
  return {}
end
local answers = {}

if now == "each" or #KEYS == 1 then
  for i, key in ipairs(KEYS) do
    local at = now == "each" and 6 * i - 3 or 2
    local own = ARGV[at - 1]
    if own == "" then
      answers[i] = "skipped"
    else
      local verdict, before, created = judge(key, ARGV[at], ARGV[at + 1])
      answers[i] = verdict == "holds" and change(own, key, at, before, created) or verdict
    end
  end
  return answers
end

-- All verdicts come before all writes: after the first write none is refused.
local before, created, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local at, verdict = 5 * i - 3, nil
  verdict, before[i], created[i] = judge(key, ARGV[at], ARGV[at + 1])
  refused = refused or verdict ~= "holds"
  answers[i] = verdict ~= "holds" and verdict or "skipped"
end
if refused then
  return answers
end
for i, key in ipairs(KEYS) do
  answers[i] = change(now, key, 5 * i - 3, before[i], created[i])
end
return answers
