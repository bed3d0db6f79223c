--- Modules in a worker: units beside each other, the environments of their modules, `require`
--- between them, and what a module tells about itself.
---
--- A *module* here is a source that was sent: one of a unit's. Units are never altered: another
--- version of a module is a module of another unit. Unit 0 are the node's own files.
---
--- An *instance* is a module that was run, in an environment of its own. Mostly a module has one.
--- But a run, and all that its functions call, shall see one version of each deployed module; so
--- if a module requires deployed ones, it has an instance for each set of versions that they have
--- in the releases (release.lua) in which it is called. An instance remembers what it saw: which
--- module stood behind a deployed name, or that there was none, and which instances it took in. It
--- serves a release if it would see the same there. One that saw nothing is *fixed*: it serves
--- them all.
---
--- `require` looks in the release of the call that runs, or, in code that runs while its module
--- loads, in the one that it is loaded for. Names that stand in the source as `require "name"`
--- count as seen from the beginning, also if only a function requires them: so that an instance
--- which two releases share does not come apart under calls that run.
---
--- Instances are made when a call needs them, from the source: a worker keeps the sources of all
--- its units, which costs it as much memory as they have bytes. (Those with comments are kept
--- for their descriptions anyway.)

local native = require "mpreg.worker"
local describe = require "mpreg.runtime.describe"
local failure = require "mpreg.runtime.failure"
local output = require "mpreg.runtime.output"
local release = require "mpreg.runtime.release"
local sandbox = require "mpreg.runtime.sandbox"
local shipped = require "mpreg.runtime.shipped"

local M = {}

--- Names of functions, for tracebacks.
M.names = setmetatable({}, { __mode = "k" })

local environments = setmetatable({}, { __mode = "k" })

---@class mpreg.runtime.Unit
---@field number integer
---@field modules table<string, mpreg.runtime.Module>
---@field is_gone boolean?

---@class mpreg.runtime.Module
---@field number integer
---@field name string
---@field file string
---@field source string
---@field unit mpreg.runtime.Unit
---@field order string[]?  names of the functions, in the host's order
---@field instances mpreg.runtime.Instance[]
---@field serving table<integer, mpreg.runtime.Instance>  by release, as of `generation`
---@field generation integer

---@class mpreg.runtime.Instance
---@field id integer
---@field module mpreg.runtime.Module
---@field release integer  that it is loaded for
---@field state "new"|"loading"|"loaded"|"failed"
---@field saw table<string, mpreg.runtime.Module|false>  deployed names
---@field took table<mpreg.runtime.Module, mpreg.runtime.Instance>
---@field takers table<mpreg.runtime.Instance, true>
---@field is_fixed boolean

local units, by_number = {}, {}
--- The modules that every node has, for those who find them as libraries.
local libraries = { number = -1, modules = {} }
--- Instances that are not fixed and whose unit is there.
local varying = {}
--- Grows whenever an instance might serve other releases than before.
local generation = 1
local last_id = 0

--- Names that are the same in each module, as in plain Lua: each environment has its own copy.
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

local function new_module(unit, number, name, source, order)
  local module = { unit = unit, number = number, name = name, source = source, order = order,
    file = chunk_name(name):sub(2), instances = {}, serving = {}, generation = generation }
  unit.modules[name] = module
  return module
end

--- The module that every node has under this name.
local function library_module(name)
  local module = libraries.modules[name]
  if not module and shipped.is_module(name) then
    local source = shipped.source(name)
    module = source and new_module(libraries, -1, name, source)
  end
  return module
end

--- --- Which instance serves which release ---

--- Whether an instance would see in a release what it saw. Instances may have taken in one another
--- (late): then they do if nothing else speaks against it.
local function serves(instance, number, asked)
  if instance.is_fixed or asked[instance] then
    return true
  end
  asked[instance] = true
  for name, module in pairs(instance.saw) do
    if (release.find(number, name) or false) ~= module then
      return false
    end
  end
  for _, other in pairs(instance.took) do
    if not serves(other, number, asked) then
      return false
    end
  end
  return true
end

--- What was found out about who serves what no longer holds.
local function ask_anew()
  generation = generation + 1
  native.forget()
end

local function remove_instance(instance)
  local instances = instance.module.instances
  for i = #instances, 1, -1 do
    if instances[i] == instance then
      table.remove(instances, i)
    end
  end
  varying[instance] = nil
  instance.module.serving = {}
  native.forget(instance.module.number, instance.id)
end

--- Instances that serve no release any more go. Calls that still run in one hold what they need.
local function sweep()
  ask_anew()
  local idle = {}
  for instance in pairs(varying) do
    local is_needed = false
    for _, number in ipairs(release.numbers()) do
      is_needed = is_needed or serves(instance, number, {})
    end
    idle[#idle + 1] = not is_needed and instance or nil
  end
  for _, instance in ipairs(idle) do
    remove_instance(instance)
  end
end

--- An instance, and whoever took it in, saw something after all.
local function unfix(instance)
  if not instance.is_fixed then
    return
  end
  instance.is_fixed = false
  if not instance.module.unit.is_gone then
    varying[instance] = true
  end
  for taker in pairs(instance.takers) do
    unfix(taker)
  end
end

local function see(instance, name, module)
  if instance.saw[name] == nil then
    instance.saw[name] = module
    if instance.state == "loaded" then
      unfix(instance)
      ask_anew()
    end
  end
end

local function take_in(instance, other)
  if instance.took[other.module] == nil then
    instance.took[other.module] = other
    other.takers[instance] = true
    if instance.state == "loaded" and not other.is_fixed then
      unfix(instance)
      ask_anew()
    end
  end
end

--- --- Loading ---

local run -- forward

--- Instances that are being loaded, each because the one before requires it.
local stack = {}

local function current_release()
  local top = stack[#stack]
  return top and top.release or native.release()
end

local function loop_text(instance)
  local names = {}
  for i = #stack, 1, -1 do
    table.insert(names, 1, stack[i].module.name)
    if stack[i] == instance then
      break
    end
  end
  names[#names + 1] = instance.module.name
  return table.concat(names, " -> ")
end

--- Names in the source that `require` might look for among the deployed modules.
local function wishes_of(module)
  local wishes = {}
  for _, name in ipairs(M.mentions(module)) do
    if not (module.unit.modules[name] or name == "mpreg" or name == "ffi" or OWN[name]
        or shipped.is_library(name) or shipped.is_module(name)) then
      wishes[#wishes + 1] = name
    end
  end
  return wishes
end

local function new_instance(module, number)
  last_id = last_id + 1
  local instance = { id = last_id, module = module, release = number, state = "new", saw = {},
    took = {}, takers = setmetatable({}, { __mode = "k" }), is_fixed = false,
    file = module.file, source = module.source }
  if module.unit ~= libraries then
    for _, name in ipairs(wishes_of(module)) do
      instance.saw[name] = release.find(number, name) or false
    end
  end
  table.insert(module.instances, instance)
  if not module.unit.is_gone then
    varying[instance] = true
  end
  return instance
end

local function find_instance(module, number)
  for _, instance in ipairs(module.instances) do
    if serves(instance, number, {}) then
      return instance
    end
  end
end

--- The instance for a release, which has run: it is "loaded" or "failed", or is "loading".
local function serve(module, number)
  if module.generation ~= generation then
    module.serving, module.generation = {}, generation
  end
  local instance = module.serving[number]
  if not instance then
    instance = find_instance(module, number) or new_instance(module, number)
    module.serving[number] = instance
  end
  if instance.state == "new" then
    run(instance)
  end
  return instance
end

--- Gives the value, and whether it serves all releases.
local function require_module(instance, module)
  local other = serve(module, current_release())
  take_in(instance, other)
  if other.state == "loading" then
    error(fail("LOAD_ERROR",
      "modules require one another in a circle: " .. loop_text(other)), 0)
  end
  if other.state == "failed" then
    local e = fail("LOAD_ERROR", ("module '%s' cannot be loaded: %s"):format(module.name,
      other.error.message))
    if other.error.reason == "WORKER_MEMORY" then
      e.code, e.reason, e.hint = other.error.code, other.error.reason, other.error.hint
    end
    error(e, 0)
  end
  return other.value, other.is_fixed
end

--- Looks for another module: of its own unit, a library, a deployed one. is_found, value, and
--- whether that is the same for all calls that run in the instance.
local function find_module(instance, name)
  local unit, is_loading = instance.module.unit, instance.state == "loading"
  local module = unit.modules[name]
  if not module and shipped.is_library(name) then
    return true, require(name), true
  end
  module = module or library_module(name)
  if module then
    local value, is_fixed = require_module(instance, module)
    return true, value, is_loading or is_fixed
  end
  if unit ~= libraries then
    module = release.find(current_release(), name)
    see(instance, name, module or false)
  end
  if module then
    return true, (require_module(instance, module)), is_loading
  end
  return false
end

local function missing(instance, name)
  if instance.module.unit.number == 0 then
    return ("module '%s' is not loaded on this node: it is neither among the node's modules nor "
      .. "one of the libraries that come with mpreg, nor deployed"):format(name)
  end
  return ("module '%s' is not there: it was not deployed, neither together with this one nor by "
    .. "itself, and is none of the libraries that come with mpreg"):format(name)
end

local function requirer(instance)
  local env = instance.env
  local loaded = env.package.loaded
  return function(name)
    if type(name) ~= "string" then
      error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2)
    end
    local value = loaded[name]
    if value ~= nil then
      return value
    end
    local is_same = true
    if name == "mpreg" then
      value = public_library()
    elseif name == "ffi" then
      value = sandbox.ffi()
    elseif OWN[name] then
      value = env[name]
    else
      local is_found
      is_found, value, is_same = find_module(instance, name)
      if not is_found then
        if not env.package.preload[name] then
          error(missing(instance, name), 2)
        end
        value, is_same = env.package.preload[name](name), true
      end
    end
    if value == nil then
      value = true
    end
    if is_same then
      loaded[name] = value
    end
    return value
  end
end

local function new_environment(instance)
  local env = sandbox.new(HOST)
  instance.env = env
  env.require = requirer(instance)
  environments[env] = true
  return env
end

local function compile(instance)
  local source = instance.source
  if source:sub(1, 1) == "\27" then
    return nil, fail("SYNTAX_ERROR", instance.file .. ": this is bytecode; a module is Lua source")
  end
  source = source:gsub("^\239\187\191", ""):gsub("^#[^\n]*", "")
  local chunk, message = load(source, "@" .. instance.file, "t", new_environment(instance))
  if not chunk then
    return nil, fail("SYNTAX_ERROR", message)
  end
  return chunk
end

local function load_error(instance, err)
  if err == "not enough memory" then
    return failure.new("RESOURCE_EXHAUSTED", instance.file
      .. ": loading it needs more memory than a worker may use", { reason = "WORKER_MEMORY",
      hint = "use less at once, or start the node with a larger --worker-memory" })
  end
  if type(err) == "string" then
    return fail("LOAD_ERROR", err:find(instance.file, 1, true) and err
      or instance.file .. ": " .. err)
  end
  local is_memory = failure.is_error(err) and err.reason == "WORKER_MEMORY"
  local e = failure.from(err, {}, function() return false end)
  if not is_memory then
    e.code, e.reason = "INVALID_ARGUMENT", "LOAD_ERROR"
  end
  e.message = instance.file .. ": " .. e.message
  return e
end

local function execute(instance)
  local chunk, err = compile(instance)
  if not chunk then
    instance.state, instance.error = "failed", err
    return
  end
  instance.value = chunk(instance.module.name)
  describe.read(instance)
  instance.state = "loaded"
end

--- Whether an instance, or one that it took in, saw anything. (One that is still loading takes part
--- in a circle.)
local function has_seen(instance, asked)
  if instance.is_fixed or asked[instance] then
    return false
  end
  asked[instance] = true
  if next(instance.saw) ~= nil then
    return true
  end
  for _, other in pairs(instance.took) do
    if has_seen(other, asked) then
      return true
    end
  end
  return false
end

local function settle(instance)
  if not has_seen(instance, {}) then
    instance.is_fixed = true
    varying[instance] = nil
    return
  end
  for taker in pairs(instance.takers) do
    unfix(taker)
  end
end

--- Runs a module that has not run; its state is then "loaded" or "failed". What runs here runs
--- once: it is not compiled to machine code.
function run(instance)
  local is_outermost, is_compiling = #stack == 0, jit.status()
  instance.state = "loading"
  stack[#stack + 1] = instance
  native.loading(true)
  if is_compiling then
    jit.off()
  end
  local ok, err = pcall(execute, instance)
  if is_compiling then
    jit.on()
  end
  stack[#stack] = nil
  if is_outermost then
    native.loading(false)
    output.flush(0)
  end
  if not ok then
    instance.state, instance.error = "failed", load_error(instance, err)
  end
  settle(instance)
  if instance.state == "failed" and instance.error.reason == "WORKER_MEMORY" then
    remove_instance(instance) -- there may be more of it the next time
  end
end

--- --- Functions ---

--- Its functions in the host's order (false: the module lacks it), and which of them return lists.
local function number_functions(instance, functions)
  local module = instance.module
  local order = module.order
  if not order then
    order = {}
    for name in pairs(functions) do
      order[#order + 1] = name
    end
    table.sort(order)
    module.order = order
  end
  local list, marks = {}, {}
  for i, name in ipairs(order) do
    list[i] = functions[name] or false
    marks[i] = functions[name] and describe.returns_list(instance, name, functions[name]) or false
    if functions[name] then
      M.names[functions[name]] = name
    end
  end
  return list, marks
end

--- Looks at what a loaded module gave, once.
local function look_at(instance)
  if instance.state == "failed" or instance.kind then
    return
  end
  local kind, functions, err = describe.look_at(instance)
  if not kind then
    instance.state, instance.error = "failed", err
    return
  end
  instance.kind, instance.functions = kind, functions
  instance.list, instance.marks = number_functions(instance, functions)
end

--- Versions of the deployed modules that an instance saw: "grid 1.2.0, towns 2.0.0".
local function seen_text(instance)
  local parts = {}
  for name, module in pairs(instance.saw) do
    local other = instance.took[module]
    local version = other and type(other.value) == "table" and rawget(other.value, "_VERSION")
    if module then
      parts[#parts + 1] = type(version) == "string" and name .. " " .. version or name
    end
  end
  table.sort(parts)
  return table.concat(parts, ", ")
end

--- The error of an instance that a call needs.
local function call_error(instance)
  local seen = seen_text(instance)
  local hint = instance.error.hint
  if seen ~= "" then
    hint = ("the module was loaded for this call, with %s"):format(seen)
  end
  return failure.new(instance.error.code, ("module '%s' cannot be loaded: %s"):format(
    instance.module.name, instance.error.message), { reason = instance.error.reason, hint = hint })
end

--- --- What the worker asks for ---

--- Takes a source; it runs with load(), or when another module requires it.
---@param number integer  the host's
---@param unit_number integer
---@param name string
---@param source string
---@param expected string[]?  names of the functions, in the host's order
function M.add(number, unit_number, name, source, expected)
  local unit = units[unit_number]
  if not unit then
    unit = { number = unit_number, modules = {} }
    units[unit_number] = unit
  end
  by_number[number] = new_module(unit, number, name, source, expected)
end

--- Runs a module, for the release that was opened last. If a module of a unit other than 0 cannot
--- be loaded for that one, but might be for the release that its calls will have, then that is no
--- error yet, and there are no functions.
---@param number integer
---@param is_described boolean
---@return boolean ok
---@return table? functions_or_error
---@return boolean[]? marks
---@return table? metadata
---@return integer? id  the instance's
---@return boolean? is_fixed  it serves all releases
function M.load(number, is_described)
  local module = by_number[number]
  local instance = serve(module, release.latest())
  look_at(instance)
  if instance.state == "failed" then
    if instance.is_fixed or is_described or module.unit.number == 0 then
      return false, instance.error
    end
    remove_instance(instance)
    return true
  end
  local metadata
  if is_described then
    metadata = describe.metadata(instance, instance.kind, instance.functions)
  end
  return true, instance.list, instance.marks, metadata, instance.id, instance.is_fixed
end

--- The functions with which a release's calls enter a module. Raises if it cannot be loaded.
---@param number integer
---@param in_release integer
---@return table functions
---@return boolean[] marks
---@return integer id
---@return boolean is_fixed
function M.find(number, in_release)
  local instance = serve(by_number[number], in_release)
  look_at(instance)
  if instance.state == "failed" then
    error(call_error(instance), 0)
  end
  return instance.list, instance.marks, instance.id, instance.is_fixed
end

--- Opens a release.
---@param number integer
---@param entries { [1]: string, [2]: integer, [3]: integer }[]  name, unit, module's number
function M.open(number, entries)
  local modules = {}
  for _, entry in ipairs(entries) do
    local module = by_number[entry[3]]
    modules[entry[1]] = module and module.unit.number == entry[2] and module or nil
  end
  release.open(number, modules)
  ask_anew()
end

--- Closes a release: no call has it any more.
---@param number integer
function M.close(number)
  release.close(number)
  sweep()
end

--- Forgets a unit: no call of it comes any more.
---@param unit_number integer
function M.unload(unit_number)
  local unit = units[unit_number]
  if not unit then
    return
  end
  units[unit_number] = nil
  unit.is_gone = true
  for _, module in pairs(unit.modules) do
    if by_number[module.number] == module then
      by_number[module.number] = nil
    end
    release.drop(module)
    for _, instance in ipairs(module.instances) do
      varying[instance] = nil
    end
  end
  sweep()
end

--- --- What a check asks for (check.lua) ---

--- The names that stand in a module's source as `require "name"`, each once.
---@param module mpreg.runtime.Module
---@return string[]
function M.mentions(module)
  if not module.mentions then
    local names, known = {}, {}
    local at = module.source:find("require", 1, true)
    while at do
      local name = module.source:match("^%s*%(?%s*[\"']([%w_.-]+)[\"']", at + #"require")
      if name and not known[name] then
        known[name] = true
        names[#names + 1] = name
      end
      at = module.source:find("require", at + 1, true)
    end
    module.mentions = names
  end
  return module.mentions
end

---@param number integer
---@return mpreg.runtime.Module
function M.module(number) return by_number[number] end

--- The ERROR for what went wrong outside of a module's code while it was loaded.
---@param number integer
---@param err any
---@return table
function M.load_error(number, err) return load_error(by_number[number], err) end

return M
