-- Makes changes, each on one key, all or none.
--
-- KEYS  one hash per change
-- ARGV  the time, or nothing: then the caller has gone, and nothing is done; then five per change: "save" or "delete"; the
--       condition: "always", "absent" or an ETag after "="; the expiry: "keep", "never" or milliseconds; a nonce; the data
--
-- Returns one array per change: {status} or, for a save that was made, {"done", version}. Statuses: "done", "skipped" (a
-- delete of what is absent, or nothing was done because of another change), "conflict", "missing" (a conflict because the
-- key is absent), "corrupt".
local now = ARGV[1]
if now == "" then
  return {}
end

-- inspect returns what a change has to know of its key. All checks come before all writes, so that no write can fail
-- after another was made.
local function inspect(key, operation, condition)
  if operation == "delete" and condition == "always" then
    return {}
  end
  local fields = redis.pcall("HMGET", key, "version", "nonce", "createdAt")
  if fields.err then
    return { status = "corrupt" } -- not a hash
  end
  local version, nonce = fields[1], fields[2]
  if not version then
    if redis.call("EXISTS", key) == 1 then
      return { status = "corrupt" }
    end
    return { version = 0 }
  end
  if #version > 15 or not string.match(version, "^%d+$") then
    return { status = "corrupt" }
  end
  return { exists = true, version = version, etag = nonce and (version .. "-" .. nonce) or version, created = fields[3] }
end

local function judge(found, condition)
  if found.status then
    return found.status
  elseif condition == "always" then
    return "holds"
  elseif condition == "absent" then
    return found.exists and "conflict" or "holds"
  elseif not found.exists then
    return "missing"
  end
  return "=" .. found.etag == condition and "holds" or "conflict"
end

-- after is the server's time in so many milliseconds, in milliseconds since 1970.
local function after(ttl)
  local time = redis.call("TIME")
  return string.format("%.0f", time[1] * 1000 + math.floor(time[2] / 1000) + ttl)
end

-- save writes when the key expires into the hash too, with the version for which that holds, so that a reader needs one
-- command.
local function save(key, found, expiry, nonce, data)
  local version = string.format("%.0f", found.version + 1)
  local at = "never"
  if expiry == "keep" then
    local ttl = found.exists and redis.call("PTTL", key) or -1
    if ttl >= 0 then
      at = after(ttl)
    end
  elseif expiry ~= "never" then
    at = after(tonumber(expiry))
  end
  if found.created then
    redis.call("HSET", key, "data", data, "version", version, "nonce", nonce, "updatedAt", now, "expiry", version .. " " .. at)
  else
    redis.call("HSET", key, "data", data, "version", version, "nonce", nonce, "updatedAt", now, "expiry", version .. " " .. at, "createdAt", now)
  end
  if expiry == "never" then
    if found.exists then
      redis.call("PERSIST", key)
    end
  elseif expiry ~= "keep" then
    redis.call("PEXPIREAT", key, at)
  end
  return { "done", version }
end

local found, answers, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local at = 2 + (i - 1) * 5
  found[i] = inspect(key, ARGV[at], ARGV[at + 1])
  local verdict = judge(found[i], ARGV[at + 1])
  refused = refused or verdict ~= "holds"
  answers[i] = { verdict ~= "holds" and verdict or "skipped" }
end
if refused then
  return answers
end
for i, key in ipairs(KEYS) do
  local at = 2 + (i - 1) * 5
  if ARGV[at] == "save" then
    answers[i] = save(key, found[i], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
  elseif redis.call("DEL", key) == 1 then
    answers[i] = { "done" }
  end
end
return answers
