--- Modules in a worker: their sources, their environments, `require` between them, and what a
--- module tells about itself.

local native = require "mpreg.worker"
local describe = require "mpreg.runtime.describe"
local failure = require "mpreg.runtime.failure"
local output = require "mpreg.runtime.output"
local sandbox = require "mpreg.runtime.sandbox"

local M = {}

--- Names of functions, for tracebacks.
M.names = setmetatable({}, { __mode = "k" })

local environments = setmetatable({}, { __mode = "k" })
local by_number, by_name = {}, {}

--- Libraries of the installation that a module may require.
local SHIPPED = { ["cjson"] = true, ["cjson.safe"] = true,
  ["string.buffer"] = true, ["table.new"] = true, ["table.clear"] = true,
  ["mpreg.pipeline"] = true }
--- Those that each environment has a copy of.
local OWN = { string = true, table = true, math = true, bit = true, jit = true, io = true,
  os = true, debug = true, coroutine = true, package = true }

---@param env any
---@return boolean
function M.is_environment(env) return environments[env] == true end

local HOST = { mark = native.mark, write = output.write }

local function chunk_name(name)
  return "@" .. name:gsub("%.", "/") .. ".lua"
end

local function fail(reason, message, hint)
  return failure.new("INVALID_ARGUMENT", message, { reason = reason, hint = hint })
end

local function public_library()
  local library = sandbox.copy(require "mpreg")
  library.log = sandbox.copy(library.log)
  return library
end

local run -- forward

local function loop_text(entry, stack)
  local names = {}
  for i = #stack, 1, -1 do
    table.insert(names, 1, stack[i].name)
    if stack[i] == entry then
      break
    end
  end
  names[#names + 1] = entry.name
  return table.concat(names, " -> ")
end

local stack = {}

local function require_module(name)
  local entry = by_name[name]
  if not entry then
    return nil
  end
  if entry.state == "loading" then
    error(fail("LOAD_ERROR",
      "modules require one another in a circle: " .. loop_text(entry, stack)), 0)
  end
  run(entry)
  if entry.state == "failed" then
    error(fail("LOAD_ERROR", ("module '%s' cannot be loaded: %s"):format(name,
      entry.error.message)), 0)
  end
  return true, entry.value
end

local function requirer(env)
  local loaded = env.package.loaded
  return function(name)
    if type(name) ~= "string" then
      error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
    end
    local value = loaded[name]
    if value ~= nil then
      return value
    end
    if name == "mpreg" then
      value = public_library()
    elseif name == "ffi" then
      value = sandbox.ffi()
    elseif OWN[name] then
      value = env[name]
    else
      local is_found, found = require_module(name)
      if is_found then
        value = found
      elseif SHIPPED[name] then
        value = require(name)
      elseif env.package.preload[name] then
        value = env.package.preload[name](name)
      else
        error(("module '%s' is not loaded on this node: it is neither among the node's modules nor "
          .. "one of the libraries that come with mpreg"):format(name), 2)
      end
    end
    loaded[name] = value == nil and true or value
    return loaded[name]
  end
end

local function new_environment()
  local env = sandbox.new(HOST)
  env.require = requirer(env)
  environments[env] = true
  return env
end

local function compile(entry)
  if entry.source:sub(1, 1) == "\27" then
    return nil, fail("SYNTAX_ERROR", entry.file .. ": this is bytecode; a module is Lua source")
  end
  local source = entry.source:gsub("^\239\187\191", ""):gsub("^#[^\n]*", "")
  local chunk, message = load(source, "@" .. entry.file, "t", new_environment())
  if not chunk then
    return nil, fail("SYNTAX_ERROR", message)
  end
  return chunk
end

local function load_error(entry, err)
  if err == "not enough memory" then
    return failure.new("RESOURCE_EXHAUSTED", entry.file
      .. ": loading it needs more memory than a worker may use", { reason = "WORKER_MEMORY",
      hint = "use less at once, or start the node with a larger --worker-memory" })
  end
  if type(err) == "string" then
    return fail("LOAD_ERROR", err:find(entry.file, 1, true) and err or entry.file .. ": " .. err)
  end
  local e = failure.from(err, {}, function() return false end)
  e.code, e.reason = "INVALID_ARGUMENT", "LOAD_ERROR"
  e.message = entry.file .. ": " .. e.message
  return e
end

--- Runs a module that has not run; its state is then "loaded" or "failed".
function run(entry)
  if entry.state ~= "new" then
    return
  end
  local chunk, err = compile(entry)
  if not chunk then
    entry.state, entry.error = "failed", err
    return
  end
  entry.state = "loading"
  stack[#stack + 1] = entry
  local ok, value = pcall(chunk, entry.name)
  stack[#stack] = nil
  output.flush(0)
  if not ok then
    entry.state, entry.error = "failed", load_error(entry, value)
    return
  end
  entry.value, entry.state = value, "loaded"
  describe.read(entry)
  entry.source = nil
end

--- Takes a source; it runs with load(), or when another module requires it.
---@param number integer  the host's
---@param name string
---@param source string
---@param expected string[]?  names of the functions, in the host's order
function M.add(number, name, source, expected)
  local entry = { number = number, name = name, source = source, expected = expected,
    file = chunk_name(name):sub(2), state = "new" }
  by_number[number] = entry
  by_name[name] = entry
end

--- Its functions in the host's order (false: the module lacks it), and which of them return lists.
local function number_functions(entry, functions)
  local order = entry.expected
  if not order then
    order = {}
    for name in pairs(functions) do
      order[#order + 1] = name
    end
    table.sort(order)
  end
  local list, marks = {}, {}
  for i, name in ipairs(order) do
    list[i] = functions[name] or false
    marks[i] = functions[name] and describe.returns_list(entry, name, functions[name]) or false
    if functions[name] then
      M.names[functions[name]] = name
    end
  end
  return list, marks
end

--- Runs a module.
---@param number integer
---@param is_described boolean
---@return boolean ok
---@return table functions_or_error
---@return boolean[]? marks
---@return table? metadata
function M.load(number, is_described)
  local entry = by_number[number]
  run(entry)
  if entry.state == "failed" then
    return false, entry.error
  end
  local kind, functions, err = describe.look_at(entry)
  if not kind then
    entry.state, entry.error = "failed", err
    return false, err
  end
  local list, marks = number_functions(entry, functions)
  local metadata
  if is_described then
    metadata = describe.metadata(entry, kind, functions)
  end
  return true, list, marks, metadata
end

return M
