--- PIPELINE on the command line: a `.lua` file, a folder with a `pipeline.lua`, a `.json` graph, or
--- the name of a pipeline that the node knows. What comes out is the payload of a run or a plan.

local codec = require "mpreg.codec"
local json = require "mpreg.cli.json"
local native = require "mpreg.native"
local pipeline = require "mpreg.pipeline"

local M = {}

local function fault(reason, message, hint)
  return { code = "INVALID_ARGUMENT", reason = reason, message = message, hint = hint }
end

-- What a pipeline's file may use: it describes a graph and does nothing else.
local SAFE = {
  "assert", "error", "getmetatable", "ipairs", "next", "pairs", "pcall", "print", "rawequal",
  "rawget", "rawset", "select", "setmetatable", "tonumber", "tostring", "type", "unpack", "xpcall",
  "_VERSION",
}
local LIBRARIES = { "bit", "coroutine", "math", "string", "table" }

local function copy(t)
  local out = {}
  for key, value in pairs(t) do out[key] = value end
  return out
end

--- The environment in which a pipeline's file runs.
local function environment()
  local env = {}
  for _, name in ipairs(SAFE) do env[name] = _G[name] end
  for _, name in ipairs(LIBRARIES) do env[name] = copy(_G[name]) end
  env.os = { clock = os.clock, date = os.date, difftime = os.difftime, time = os.time }
  -- stdout belongs to the command's result.
  function env.print(...)
    local words = {}
    for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
    io.stderr:write(table.concat(words, "\t"), "\n")
  end
  function env.require(name)
    if name == "mpreg" then return require "mpreg" end
    error(("a pipeline can require mpreg alone, not '%s'; the work is done by functions of modules")
      :format(tostring(name)), 2)
  end
  env._G = env
  return env
end

--- Runs a pipeline's file.
---@param path string
---@return table? pipeline
---@return table? ERROR
function M.load_file(path)
  local text, err = json.read_file(path)
  if not text then return nil, err end
  text = text:gsub("^#[^\n]*", "")
  local chunk, problem = load(text, "@" .. path, "t", environment())
  if not chunk then return nil, fault("BAD_PIPELINE", problem) end
  local ok, result = xpcall(chunk, function(message)
    if type(message) == "table" and message.message then message = message.message end
    return tostring(message)
  end)
  if not ok then return nil, fault("BAD_PIPELINE", result) end
  if not pipeline.is_pipeline(result) then
    local what = ("%s returns a %s, not a pipeline"):format(path, type(result))
    return nil, fault("BAD_PIPELINE", what,
      "end it with: return mpreg.pipeline(\"name\", function(p, input) … end)")
  end
  return result
end

--- Puts the input into an encoded graph (or a map with `pipeline`).
local function with_input(bytes, input)
  if not input then return bytes end
  local first = bytes:byte()
  -- The first bytes of maps.
  if not (first >= 0x80 and first <= 0x8f or first == 0xde or first == 0xdf) then
    return nil, fault("BAD_GRAPH", "a graph must be an object with \"steps\"")
  end
  local map = codec.decode(bytes)
  local value = codec.decode(input)
  if value == nil then value = codec.null end
  map.input = value
  return codec.encode(map)
end

local function from_lua(path, input)
  local loaded, err = M.load_file(path)
  if not loaded then return nil, err end
  local bytes, problem = codec.encode(pipeline.graph(loaded))
  if not bytes then
    return nil, fault("UNENCODABLE", ("%s: %s: %s"):format(path, problem.path or "",
      problem.message), problem.hint)
  end
  return with_input(bytes, input)
end

local function from_json(path, input)
  local text, err = json.read_file(path)
  if not text then return nil, err end
  local bytes
  bytes, err = json.decode(text, path == "-" and "stdin" or path, { graph = true })
  if not bytes then return nil, err end
  return with_input(bytes, input)
end

--- The payload for PIPELINE.
---@param source string
---@param input? string  MessagePack
---@return string? payload  MessagePack: a graph, or a map of `pipeline` and `input`
---@return table? ERROR
function M.payload(source, input)
  if source == "-" then return from_json("-", input) end
  local stat = native.stat(source)
  if stat and stat.type == "folder" then
    local path = source:gsub("/+$", "") .. "/pipeline.lua"
    if not native.stat(path) then
      return nil, fault("UNREADABLE", ("%s has no pipeline.lua"):format(source))
    end
    return from_lua(path, input)
  end
  if source:find("%.lua$") then return from_lua(source, input) end
  if source:find("%.json$") then return from_json(source, input) end
  if stat then
    return nil, fault("UNREADABLE", ("%s is neither a .lua file nor a .json graph"):format(source))
  end
  if not source:find("^[%w_][%w_.-]*$") then
    return nil, fault("UNREADABLE", ("there is no %s"):format(source))
  end
  return with_input(codec.encode { pipeline = source }, input)
end

--- MessagePack of `--input JSON|@FILE|-`; unlike an ARG it is never taken as a text.
---@param word? string
---@return string? bytes
---@return table? ERROR
function M.input(word)
  if not word then return nil end
  if word == "-" or word:sub(1, 1) == "@" then
    local path = word == "-" and "-" or word:sub(2)
    local text, err = json.read_file(path)
    if not text then return nil, err end
    return json.decode(text, "--input, " .. (path == "-" and "stdin" or path))
  end
  return json.decode(word, "--input")
end

return M
