--- What a node can be told: the same keys as flags and in a config file.
---
--- A config file is Lua that returns a table: `name = "n1"`, `listen = "0.0.0.0:7400"`,
--- `join = { "10.0.0.1:7400" }`, `load = { "modules" }`,
--- `resource = { catalogue = { path = "data" }, gpu = true }`, `call_timeout = "30s"`,
--- `worker_memory = "256M"`. A flag replaces the file's key.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local json = require "mpreg.cli.json"
local native = require "mpreg.native"
local suggest = require "mpreg.suggest"
local units = require "mpreg.units"

local M = {}

local YEAR_MS = 366 * 86400 * 1000
local RESOURCES_BYTES_MAX = 256 * 1024
local SEEDS_MAX = 64
local HOST_NAME_FILE = "/proc/sys/kernel/hostname"

-- ------------------------------------------------------------------------------------------------
-- Checks: value (of a flag a text, of a file anything) → result, or nil, reason, problem
-- ------------------------------------------------------------------------------------------------

local function wrong_type(expected, value)
  return nil, "WRONG_TYPE", ("must be %s, not a %s"):format(expected, type(value))
end

local function name(value)
  if type(value) ~= "string" then return wrong_type("a name", value) end
  if not value:find("^[%w_][%w_-]*$") or #value > 64 then
    return nil, "OUT_OF_RANGE",
      ("'%s' is no name: use up to 64 letters, digits, _ and -"):format(value)
  end
  return value
end

local function boolean(value)
  if type(value) ~= "boolean" then return wrong_type("true or false", value) end
  return value
end

local function split_address(text)
  local host, port = text:match("^%[?(.-)%]?:(%d+)$")
  return host, tonumber(port)
end

--- Whether a node that listens there takes connections at any of the machine's addresses.
local function is_wildcard(host)
  return host:find("^0*[:.]0*[:.][0:.]*$") ~= nil or host == "0"
end

local function address(value)
  if type(value) ~= "string" then return wrong_type("a text \"HOST:PORT\"", value) end
  local ok, problem = args.address(value)
  if not ok then return nil, "OUT_OF_RANGE", problem end
  return value
end

--- One that others are told, or that is dialled: not "here, whatever that is".
local function reachable_address(value)
  local ok, reason, problem = address(value)
  if not ok then return nil, reason, problem end
  if is_wildcard(split_address(value)) then
    return nil, "OUT_OF_RANGE", ("%s is no address that anybody could reach"):format(value)
  end
  return value
end

local function seeds(value)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" then
    return wrong_type("a text \"HOST:PORT\" or a list of them", value)
  end
  local out = {}
  for i, seed in ipairs(value) do
    local ok, reason, problem = reachable_address(seed)
    if not ok then return nil, reason, problem end
    if select(2, split_address(seed)) == 0 then
      return nil, "OUT_OF_RANGE", ("%s: port 0 is no port of a node"):format(seed)
    end
    out[i] = seed
  end
  if #out == 0 and next(value) ~= nil then return wrong_type("a list of HOST:PORT", value) end
  if #out > SEEDS_MAX then
    return nil, "OUT_OF_RANGE", ("%d of them, at most %d: one that is up suffices"):format(#out,
      SEEDS_MAX)
  end
  return out
end

local function folder(value)
  if type(value) ~= "string" then return wrong_type("a path", value) end
  if value == "" or value:find("%z") then return nil, "OUT_OF_RANGE", "the path is empty" end
  local there = native.stat(value)
  if there and there.type ~= "folder" then
    return nil, "OUT_OF_RANGE", ("%s is no folder"):format(value)
  end
  return value
end

local function ranged(value, low, high, show)
  if value < low or value > high then
    return nil, "OUT_OF_RANGE", ("%s is out of range: from %s to %s"):format(show(value), show(low),
      show(high))
  end
  return value
end

local function whole_text(value) return ("%.0f"):format(value) end

local function whole(low, high)
  return function(value)
    local n = type(value) == "string" and value:find("^%-?%d+$") and tonumber(value) or value
    if type(n) ~= "number" then
      if type(value) == "string" then
        return nil, "WRONG_TYPE", ("'%s' is no whole number"):format(value)
      end
      return wrong_type("a whole number", value)
    elseif n % 1 ~= 0 then
      return nil, "WRONG_TYPE", ("%s is no whole number"):format(tostring(n))
    end
    return ranged(n, low, high, whole_text)
  end
end

local function ms_text(ms)
  for _, unit in ipairs { { "h", 3600000 }, { "m", 60000 }, { "s", 1000 } } do
    if ms >= unit[2] and ms % unit[2] == 0 then return ("%d%s"):format(ms / unit[2], unit[1]) end
  end
  return ("%.0fms"):format(ms)
end

local function duration(low)
  return function(value)
    if type(value) ~= "string" then return wrong_type("a duration such as \"30s\"", value) end
    local ms, problem = units.duration_ms(value)
    if not ms then return nil, "WRONG_TYPE", problem end
    return ranged(ms, low, YEAR_MS, ms_text)
  end
end

local function bytes_text(bytes)
  for _, unit in ipairs { { "G", 2 ^ 30 }, { "M", 2 ^ 20 }, { "K", 2 ^ 10 } } do
    if bytes >= unit[2] and bytes % unit[2] == 0 then
      return ("%.0f%s"):format(bytes / unit[2], unit[1])
    end
  end
  return ("%.0f"):format(bytes)
end

local function size(low, high)
  return function(value)
    local bytes = value
    if type(value) == "string" then
      local read, problem = units.size_bytes(value)
      if not read then return nil, "WRONG_TYPE", problem end
      bytes = read
    end
    if type(bytes) ~= "number" then return wrong_type("a size such as \"256M\"", value) end
    return ranged(bytes, low, high, bytes_text)
  end
end

local function word(words)
  local choose = args.choice(words)
  return function(value)
    if type(value) ~= "string" then
      return wrong_type("one of " .. table.concat(words, ", "), value)
    end
    local ok, problem = choose(value)
    if not ok then return nil, "OUT_OF_RANGE", problem end
    return ok
  end
end

local function paths(value)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" then return wrong_type("a path or a list of paths", value) end
  local out = {}
  for i, path in ipairs(value) do
    if type(path) ~= "string" then return wrong_type("a list of paths", path) end
    if not native.stat(path) then return nil, "OUT_OF_RANGE", ("there is no %s"):format(path) end
    out[i] = path
  end
  if #out == 0 and next(value) ~= nil then return wrong_type("a list of paths", value) end
  return out
end

--- One `NAME[=JSON]`: name and MessagePack, or true without JSON.
local function resource_word(text, out)
  local resource, value = text:match("^([^=]*)=(.*)$")
  resource = resource or text
  local ok, reason, problem = name(resource)
  if not ok then return nil, reason, problem end
  if out[resource] ~= nil then
    return nil, "OUT_OF_RANGE", ("resource %s is given twice"):format(resource)
  end
  if not value then
    out[resource] = true
    return out
  end
  local bytes, err = json.decode(value, ("the JSON of resource %s"):format(resource))
  if not bytes then return nil, "BAD_JSON", err.message end
  out[resource] = bytes
  return out
end

--- All of them travel to each worker in one message.
local function small_enough(out)
  local bytes = 0
  for _, encoded in pairs(out) do bytes = bytes + (encoded == true and 0 or #encoded) end
  if bytes > RESOURCES_BYTES_MAX then
    return nil, "OUT_OF_RANGE", ("the values take %d bytes, together at most %s: put large data in "
      .. "a file and its path in the value"):format(bytes, bytes_text(RESOURCES_BYTES_MAX))
  end
  return out
end

--- A list of `NAME[=JSON]`, or (in a file) a map of names to values.
local function resources(value)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" then return wrong_type("a map of names to values", value) end
  local out = {}
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    local inner = value[key]
    if type(key) == "number" then
      if type(inner) ~= "string" then return wrong_type("a list of names, or a map", inner) end
      local ok, reason, problem = resource_word(inner, out)
      if not ok then return nil, reason, problem end
    else
      local ok, reason, problem = name(key)
      if not ok then return nil, reason, problem end
      local bytes, failure = codec.encode(inner)
      if not bytes then
        return nil, "WRONG_TYPE", ("%s%s: %s"):format(key, failure.path or "", failure.message)
      end
      out[key] = inner == true or bytes
    end
  end
  return small_enough(out)
end

-- ------------------------------------------------------------------------------------------------
-- The keys
-- ------------------------------------------------------------------------------------------------

-- key, placeholder (false: a flag without a value), help, check, default, the field of the result
-- if it has another name; `many` and `complete` as of any flag
local KEYS = {
  { "name", "NAME", "Unique in its cluster (the host's name and a random suffix).", name },
  { "cluster", "ID", "The cluster that it belongs to (default).", name, "default" },
  { "listen", "HOST:PORT", "Where it listens (127.0.0.1:7400); port 0: any free one. Other than "
    .. "loopback needs --insecure.", address, "127.0.0.1:7400", complete = false },
  { "advertise", "HOST:PORT", "Where others reach it (where it listens); port 0: the port that it "
    .. "listens on.", reachable_address, complete = false },
  { "join", "HOST:PORT", "A node of the cluster to join; repeatable, one that is up suffices.",
    seeds, {}, many = true },
  { "insecure", false, "Listen beyond this machine, for anyone who can connect.", boolean, false },
  { "resource", "NAME[=JSON]", "What this node has; repeatable. Functions read the JSON.",
    resources, {}, "resources", many = true },
  { "load", "PATH", "A module file, or a folder of them; repeatable.", paths, {}, many = true },
  { "data", "DIR", "What must outlive the node, made if it is missing (a temporary folder). Only "
    .. "one node at a time uses it.", folder },
  { "workers", "N", "Worker processes (the processors that there are).", whole(1, 256) },
  { "call_timeout", "30s", "Of calls that bring none.", duration(1), 30000, "call_timeout_ms" },
  { "run_timeout", "1h", "Of runs that bring none.", duration(1), 3600000, "run_timeout_ms" },
  { "worker_memory", "256M", "A worker that takes more is replaced.", size(2 ^ 24, 2 ^ 38),
    2 ^ 28 },
  { "value_max", "64M", "A larger value is refused.", size(2 ^ 10, 2 ^ 30), 2 ^ 26 },
  { "calls_begun_max", "4096", "Calls begun at once in a worker.", whole(1, 65536), 4096 },
  { "calls_queued_max", "65536", "Calls that wait in the node.", whole(1, 1048576), 65536 },
  { "call_depth_max", "32", "Functions that call functions that call …", whole(1, 256), 32 },
  { "graph_steps_max", "100000", "Steps of one graph.", whole(1, 10000000), 100000 },
  { "runs_kept", "1000", "Records of runs that are kept; the oldest go.", whole(1, 100000), 1000 },
  { "runs_kept_bytes", "256M", "What they take, large results included.", size(2 ^ 20, 2 ^ 40),
    2 ^ 28 },
  { "runs_kept_age", "7d", "Older ones go.", duration(1000), 604800000, "runs_kept_age_ms" },
  { "drain", "10s", "Time for what runs when the node is told to stop.", duration(0), 10000,
    "drain_ms" },
  { "log_level", "debug|info|warn|error", "What goes to stderr (info).",
    word { "debug", "info", "warn", "error" }, "info" },
  { "log_format", "text|json", "How it is written (text).", word { "text", "json" }, "text" },
}

local BY_KEY, KEY_NAMES = {}, {}
for _, key in ipairs(KEYS) do
  BY_KEY[key[1]] = key
  KEY_NAMES[#KEY_NAMES + 1] = key[1]
end

--- The flags of `mpreg node`.
---@return table[]
function M.flags()
  local flags = {}
  for i, key in ipairs(KEYS) do
    flags[i] = { "--" .. key[1]:gsub("_", "-"), key[2], key[3], many = key.many,
      complete = key.complete }
  end
  flags[#flags + 1] = { "--config", "FILE.lua",
    "A Lua file that returns a table with the same keys." }
  return flags
end

-- ------------------------------------------------------------------------------------------------
-- Reading
-- ------------------------------------------------------------------------------------------------

local function fault(reason, message, hint)
  return { code = "INVALID_ARGUMENT", reason = reason, message = message, hint = hint }
end

--- One ERROR for all faults: its code, reason and message are the first's.
local function join(faults)
  local first = faults[1]
  local err = fault(first.reason, first.message, first.hint)
  if #faults > 1 then err.faults = codec.array(faults) end
  return err
end

local function check_file_table(path, t, result, faults)
  local keys = {}
  for key in pairs(t) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for _, key in ipairs(keys) do
    local spelled = type(key) == "string" and key:gsub("-", "_") or tostring(key)
    local known = type(key) == "string" and BY_KEY[spelled]
    if not known then
      local near = suggest.nearest(spelled, KEY_NAMES)
      local message = ("%s: %s: unknown key"):format(path, tostring(key))
      faults[#faults + 1] = fault("UNKNOWN_KEY", message,
        near and ("did you mean %s?"):format(near))
    else
      local value, reason, problem = known[4](t[key])
      if value == nil then
        faults[#faults + 1] = fault(reason, ("%s: %s: %s"):format(path, key, problem))
      else
        result[spelled] = value
      end
    end
  end
end

local function read_file(path, result, faults)
  local text, err = json.read_file(path)
  if not text then return err end
  local chunk, problem = load(text, "@" .. path, "t", setmetatable({}, { __index = _G }))
  if not chunk then return fault("BAD_CONFIG", problem) end
  local ok, t = pcall(chunk)
  if not ok then return fault("BAD_CONFIG", tostring(t)) end
  if type(t) ~= "table" then
    return fault("BAD_CONFIG", ("%s returns a %s, not a table of keys"):format(path, type(t)))
  end
  check_file_table(path, t, result, faults)
end

local function address_table(text)
  local host, port = split_address(text)
  return { host = host, port = port }
end

local function is_loopback(host)
  return host == "localhost" or host == "::1" or host:find("^127%.%d+%.%d+%.%d+$") ~= nil
end

--- The host's name up to its first dot, and four random digits.
function M.default_name()
  local file = io.open(HOST_NAME_FILE)
  local host = file and file:read("*l") or "node"
  if file then file:close() end
  host = host:match("^[^.]*"):gsub("[^%w_-]", "_"):gsub("^%-", "_"):sub(1, 59)
  local random = assert(io.open("/dev/urandom", "rb"))
  local a, b = random:read(2):byte(1, 2)
  random:close()
  return ("%s-%02x%02x"):format(host == "" and "node" or host, a, b)
end

--- The config of a node from the flags of the command line (and the file that they name).
---@param options table
---@return table? config  for mpreg.host
---@return table? ERROR  with all faults
function M.read(options)
  local values, faults = {}, {}
  if options.config then
    local err = read_file(options.config, values, faults)
    if err then return nil, err end
  end
  for _, key in ipairs(KEYS) do
    local given = options[key[1]]
    if given ~= nil then
      local value, reason, problem = key[4](given)
      if value == nil then
        faults[#faults + 1] = fault(reason, ("--%s: %s"):format(key[1]:gsub("_", "-"), problem))
      else
        values[key[1]] = value
      end
    end
  end

  local config = {}
  for _, key in ipairs(KEYS) do
    local value = values[key[1]]
    if value == nil then value = key[5] end
    config[key[6] or key[1]] = value
  end
  config.name = config.name or M.default_name()
  local host, port = split_address(config.listen)
  if not is_loopback(host) and not config.insecure then
    faults[#faults + 1] = fault("INSECURE",
      ("listen: %s is reachable from other machines, and this node has no keys to tell friend from "
        .. "foe"):format(config.listen),
      "listen on 127.0.0.1, or add --insecure if everyone who can connect may run code here")
  end
  if is_wildcard(host) and not config.advertise then
    faults[#faults + 1] = fault("OUT_OF_RANGE",
      ("listen: other nodes cannot reach a node at %s, which stands for any address"):format(
        config.listen),
      ("name an address of this machine that they reach: --advertise 192.0.2.1:%d"):format(port))
  end
  if #faults > 0 then return nil, join(faults) end
  config.listen = { host = host, port = port }
  config.advertise = config.advertise and address_table(config.advertise)
  for i, seed in ipairs(config.join) do config.join[i] = address_table(seed) end
  return config
end

return M
