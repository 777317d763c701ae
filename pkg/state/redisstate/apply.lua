-- Makes changes, each on one key, all or none.
--
-- KEYS  one hash per change
-- ARGV  the time, or nothing: then the caller has gone, and nothing is done; then five per change: "save" or "delete"; the
--       condition: "always", "absent" or an ETag after "="; the expiry: "keep", "never" or milliseconds; a nonce; the data
--
-- Returns one string per change: the new version of a save that was made, or "done" (a delete), "skipped" (a delete of what
-- is absent, or nothing was done because of another change), "conflict", "missing" (a conflict because the key is absent),
-- "corrupt".
local now = ARGV[1]
if now == "" then
  return {}
end

-- judge returns "holds" or why the change is not made, and what a save has to know: the version before, 0 for a new key, and
-- the time of creation, if the hash has it. All of this comes before all writes, so that no write can fail after another was
-- made.
local function judge(key, operation, condition)
  if operation == "delete" and condition == "always" then
    return "holds"
  end
  local fields = redis.pcall("HMGET", key, "version", "nonce", "createdAt")
  if fields.err then
    return "corrupt" -- not a hash
  end
  local version, nonce = fields[1], fields[2]
  if not version then
    if redis.call("EXISTS", key) == 1 then
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
  local time = redis.call("TIME")
  return string.format("%.0f", time[1] * 1000 + math.floor(time[2] / 1000) + ttl)
end

-- save writes when the key expires into the hash too, with the version for which that holds, so that a reader needs one
-- command.
local function save(key, before, created, expiry, nonce, data)
  local version = string.format("%.0f", before + 1)
  local at = "never"
  if expiry == "keep" then
    local ttl = before ~= 0 and redis.call("PTTL", key) or -1
    if ttl >= 0 then
      at = after(ttl)
    end
  elseif expiry ~= "never" then
    at = after(tonumber(expiry))
  end
  if created then
    redis.call("HSET", key, "data", data, "version", version, "nonce", nonce, "updatedAt", now, "expiry", version .. " " .. at)
  else
    redis.call("HSET", key, "data", data, "version", version, "nonce", nonce, "updatedAt", now, "expiry", version .. " " .. at, "createdAt", now)
  end
  if expiry == "never" then
    if before ~= 0 then
      redis.call("PERSIST", key)
    end
  elseif expiry ~= "keep" then
    redis.call("PEXPIREAT", key, at)
  end
  return version
end

-- change makes the change whose arguments begin with the one at the index.
local function change(key, at, before, created)
  if ARGV[at] == "save" then
    return save(key, before, created, ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
  end
  return redis.call("DEL", key) == 1 and "done" or "skipped"
end

if #KEYS == 1 then -- as nearly all calls are
  local verdict, before, created = judge(KEYS[1], ARGV[2], ARGV[3])
  return { verdict == "holds" and change(KEYS[1], 2, before, created) or verdict }
end

local answers, before, created, refused = {}, {}, {}, false
for i, key in ipairs(KEYS) do
  local at, verdict = 2 + (i - 1) * 5, nil
  verdict, before[i], created[i] = judge(key, ARGV[at], ARGV[at + 1])
  refused = refused or verdict ~= "holds"
  answers[i] = verdict ~= "holds" and verdict or "skipped"
end
if refused then
  return answers
end
for i, key in ipairs(KEYS) do
  answers[i] = change(key, 2 + (i - 1) * 5, before[i], created[i])
end
return answers
