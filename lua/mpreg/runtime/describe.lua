--- What a module tells about itself: its functions, their documentation and options, its version.
--- Everything that the module wrote for the platform is checked here.

local doc = require "mpreg.runtime.doc"
local failure = require "mpreg.runtime.failure"
local pattern = require "mpreg.runtime.pattern"
local span = require "mpreg.runtime.span"

local M = {}

local FUNCTIONS_MAX = 4096
local NEEDS_MAX = 32
local PATTERNS_MAX = 32

--- The comments of an instance's source, by its environment: versions of one file are kept apart.
local docs = setmetatable({}, { __mode = "k" })

local function fail(entry, reason, message, hint)
  return failure.new("INVALID_ARGUMENT", entry.file .. ": " .. message,
    { reason = reason, hint = hint })
end

local function pipelines()
  local ok, library = pcall(require, "mpreg.pipeline")
  return ok and library or nil
end

local function is_pipeline(value)
  local library = pipelines()
  return library ~= nil and library.is_pipeline(value)
end

--- Keeps the source for its comments, which are read when somebody asks for one.
---@param entry table
function M.read(entry)
  local has_comments = entry.source:find("---", 1, true) ~= nil
  docs[entry.env] = { chunk = "@" .. entry.file, source = has_comments and entry.source or nil }
end

local function blocks_of(info)
  if not info.blocks then
    info.blocks = info.source and doc.parse(info.source) or {}
  end
  return info.blocks
end

--- The block of a function that was made elsewhere (wrapped, say): the one before the line that
--- assigns its name.
local function block_by_name(info, name)
  if not info.source then
    return nil
  end
  local number, blocks = 0, blocks_of(info)
  for line in (info.source .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if blocks[number] and (line:match("^%s*[%w_]+%.([%w_]+)%s*=") == name
        or line:match("^%s*([%w_]+)%s*=") == name) then
      return blocks[number]
    end
  end
  return nil
end

local function block_of(entry, name, func)
  local place = debug.getinfo(func, "S")
  local info = docs[getfenv(func)]
  local block = info and info.chunk == place.source and blocks_of(info)[place.linedefined]
  return block or block_by_name(docs[entry.env], name)
end

--- Whether any function in the source may say that it returns a list: workers, which want to know
--- only that, need not read most modules' comments.
local function has_lists(info)
  if info and info.has_lists == nil then
    info.has_lists = info.source ~= nil and info.source:find("@return[^\n]*%[%]") ~= nil
  end
  return info and info.has_lists
end

--- Whether the function's `@return` says that it is a list.
---@param entry table
---@param name string
---@param func function
---@return boolean
function M.returns_list(entry, name, func)
  if not has_lists(docs[entry.env]) and not has_lists(docs[getfenv(func)]) then
    return false
  end
  local block = block_of(entry, name, func)
  return block ~= nil and block.returns ~= nil and block.returns:find("%[%]$") ~= nil
end

local function is_semver(text)
  local core = text:match("^(%d+%.%d+%.%d+)$") or text:match("^(%d+%.%d+%.%d+)[-+][%w.+-]+$")
  if not core then
    return false
  end
  for number in core:gmatch("%d+") do
    if #number > 1 and number:sub(1, 1) == "0" or #number > 9 then
      return false
    end
  end
  return not text:find("%.%.") and not text:find("[-+.]$") and not text:find("[-+]%.")
end

local function is_name(text)
  return type(text) == "string" and #text <= 64 and text:find("^[%w_][%w_-]*$") ~= nil
end

local CHECKS = {
  needs = function(value)
    if type(value) ~= "table" or #value > NEEDS_MAX then
      return nil, "must be a list of resource names"
    end
    local names = {}
    for key, name in pairs(value) do
      if type(key) ~= "number" or not is_name(name) then
        return nil, "must be a list of resource names"
      end
      names[key] = name
    end
    if #names == 0 then
      return nil
    end
    return names
  end,
  concurrency = function(value)
    if type(value) ~= "number" or value < 1 or value % 1 ~= 0 or value > 1e6 then
      return nil, "must be a whole number from 1 on"
    end
    return value
  end,
  timeout = function(value)
    return span.to_ms(value)
  end,
  idempotent = function(value)
    if type(value) ~= "boolean" then
      return nil, "must be true or false"
    end
    return value
  end,
  subscribe = function(value)
    if type(value) == "string" then
      value = { value }
    end
    local count = 0
    for _ in pairs(type(value) == "table" and value or {}) do
      count = count + 1
    end
    if count == 0 or count ~= #value or count > PATTERNS_MAX then
      return nil, ("must be a pattern of topics, or a list of 1 to %d"):format(PATTERNS_MAX)
    end
    local patterns = {}
    for i = 1, count do
      local why = pattern.problem(value[i])
      if why then
        return nil, why
      end
      patterns[i] = value[i]
    end
    return patterns
  end,
}
local TARGETS = { timeout = "timeout_ms" }

local function sorted_keys(t)
  local keys = {}
  for key in pairs(t) do
    keys[#keys + 1] = key
  end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  return keys
end

--- The checked options of one function, or nil and what is wrong.
local function check_options(name, options)
  if type(options) ~= "table" then
    return nil, ("_mpreg.%s must be a table of options"):format(name)
  end
  local checked = {}
  for _, key in ipairs(sorted_keys(options)) do
    local check = CHECKS[key]
    if not check then
      return nil, ("_mpreg.%s.%s: there is no such option; there are concurrency, idempotent, "
        .. "needs, subscribe and timeout"):format(name, tostring(key))
    end
    local value, why = check(options[key])
    if why then
      return nil, ("_mpreg.%s.%s: %s"):format(name, key, why)
    end
    checked[TARGETS[key] or key] = value
  end
  return checked
end

local function look_at_options(value, functions)
  local all = rawget(value, "_mpreg")
  if all == nil then
    return {}
  end
  if type(all) ~= "table" then
    return nil, "_mpreg must be a table: function name = options"
  end
  local checked = {}
  for _, name in ipairs(sorted_keys(all)) do
    if not functions[name] then
      return nil, ("_mpreg.%s: the module has no function of that name"):format(tostring(name))
    end
    local options, why = check_options(name, all[name])
    if not options then
      return nil, why
    end
    checked[name] = options
  end
  return checked
end

local function look_at_functions(value)
  local functions, count = {}, 0
  for key, member in next, value do
    if type(member) == "function" and is_name(key) and key:sub(1, 1) ~= "_" then
      functions[key] = member
      count = count + 1
    end
  end
  if count > FUNCTIONS_MAX then
    return nil, ("a module may have %d functions, this one has %d"):format(FUNCTIONS_MAX, count)
  end
  return functions
end

--- What a loaded module is: "module" and its functions by name, or "pipeline"; nil and an ERROR.
---@param entry table
---@return "module"|"pipeline"|nil kind
---@return table<string, function>? functions
---@return table? err
function M.look_at(entry)
  local value = entry.value
  if is_pipeline(value) then
    return "pipeline", {}
  end
  if type(value) ~= "table" then
    local what = value == nil and "nothing" or "a " .. type(value)
    return nil, nil, fail(entry, "BAD_MODULE",
      ("it returned %s; a module returns a table of functions"):format(what),
      "end the file with `return M`")
  end
  local functions, why = look_at_functions(value)
  if not functions then
    return nil, nil, fail(entry, "BAD_MODULE", why)
  end
  local version = rawget(value, "_VERSION")
  if version ~= nil and not (type(version) == "string" and is_semver(version)) then
    return nil, nil, fail(entry, "BAD_VERSION",
      ("_VERSION is %s; it must be a text such as \"1.2.0\""):format(type(version) == "string"
        and ("%q"):format(version) or "a " .. type(version)))
  end
  entry.version = version or "0.0.0"
  entry.options, why = look_at_options(value, functions)
  if not entry.options then
    return nil, nil, fail(entry, "BAD_OPTIONS", why)
  end
  return "module", functions
end

--- Parameters by their names in the code, with what the comments say about each.
local function params_of(func, block)
  local known = {}
  for _, param in ipairs(block and block.params or {}) do
    known[param.name] = param
  end
  local info = debug.getinfo(func, "u")
  local params = {}
  for i = 1, info.nparams or 0 do
    local name = debug.getlocal(func, i)
    params[#params + 1] = known[name] or { name = name }
  end
  if info.isvararg then
    params[#params + 1] = known["..."] or { name = "..." }
  end
  return params
end

local function describe_function(entry, name, func)
  local block = block_of(entry, name, func)
  local about = { name = name, doc = block and block.doc, returns = block and block.returns }
  local params = params_of(func, block)
  if #params > 0 then
    about.params = params
  end
  for key, value in pairs(entry.options[name] or {}) do
    about[key] = value
  end
  return about
end

--- The metadata that the host keeps.
---@param entry table
---@param kind "module"|"pipeline"
---@param functions table<string, function>
---@return table
function M.metadata(entry, kind, functions)
  local info = docs[entry.env]
  local about = info and blocks_of(info).module
  local text = about and about.doc
  if kind == "pipeline" then
    local graph = pipelines().graph(entry.value)
    return { kind = kind, name = graph.name, graph = graph, doc = text }
  end
  local list = {}
  for _, name in ipairs(sorted_keys(functions)) do
    list[#list + 1] = describe_function(entry, name, functions[name])
  end
  if #list == 0 then
    list = require("mpreg.codec").array(list)
  end
  return { kind = kind, version = entry.version, functions = list, doc = text }
end

return M
