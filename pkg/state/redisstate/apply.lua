-- Makes changes, each on one key, all or none.
--
-- KEYS  one hash per change
-- ARGV  the time, then five per change: "save" or "delete"; the condition: "always", "absent" or an ETag after "=";
--       the expiry: "keep", "never" or milliseconds; a nonce, for a hash that has none; the data
--
-- Returns one array per change: {status} or, for a save that was made, {"done", version, nonce}. Statuses: "done",
-- "skipped" (a delete of what is absent, or nothing was done because of another change), "conflict", "missing" (a
-- conflict because the key is absent), "corrupt".

-- inspect returns what a change has to know of its key. All checks come before all writes, so that no write can fail
-- after another was made.
local function inspect(key, operation, condition)
  if operation == "delete" and condition == "always" then
    return { exists = redis.call("EXISTS", key) == 1 }
  end
  local fields = redis.pcall("HMGET", key, "version", "nonce")
  if fields.err then
    return { status = "corrupt" } -- not a hash
  end
  local version, nonce = fields[1], fields[2]
  if not version then
    if redis.call("EXISTS", key) == 1 then
      return { status = "corrupt" }
    end
    return { exists = false }
  end
  if not string.match(version, "^%d+$") or #version > 15 then
    return { status = "corrupt" }
  end
  return { exists = true, nonce = nonce, etag = nonce and (version .. "-" .. nonce) or version }
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

local function save(key, found, now, expiry, nonce, data)
  nonce = found.nonce or nonce
  redis.call("HSET", key, "data", data, "nonce", nonce, "updatedAt", now)
  redis.call("HSETNX", key, "createdAt", now)
  local version = redis.call("HINCRBY", key, "version", 1)
  if expiry == "never" then
    redis.call("PERSIST", key)
  elseif expiry ~= "keep" then
    redis.call("PEXPIRE", key, expiry)
  end
  return { "done", version, nonce }
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
    answers[i] = save(key, found[i], ARGV[1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4])
  elseif found[i].exists then
    redis.call("DEL", key)
    answers[i] = { "done" }
  end
end
return answers
