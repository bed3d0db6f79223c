--- The environment of one module version: the standard libraries, its own to change, without what
--- would reach past the module: the node's files as code, the process, other modules' globals.
---
--- Coroutines of the user's own let the platform's yields pass: when one yields the platform's
--- mark, whoever resumed it yields the mark too, until it reaches the scheduler; on the way back
--- each resumes the next. So `mpreg.call` works inside them.

local failure = require "mpreg.runtime.failure"

local M = {}

local co_create, co_resume, co_running = coroutine.create, coroutine.resume, coroutine.running
local co_yield, co_isyieldable = coroutine.yield, coroutine.isyieldable

local COPIED = { "string", "table", "math", "bit" }
local GLOBALS = { "assert", "error", "getmetatable", "ipairs", "next", "pairs",
  "pcall", "rawequal", "rawget", "rawlen", "rawset", "select", "setmetatable", "tonumber",
  "tostring", "type", "unpack", "xpcall", "_VERSION", "newproxy" }

local function copy(t)
  local c = {}
  for key, value in pairs(t) do
    c[key] = value
  end
  return c
end
M.copy = copy

local function refused(name, why)
  return function()
    error(failure.new("FAILED_PRECONDITION", name .. " is refused in a function: " .. why,
      { reason = name == "os.exit" and "EXIT_REFUSED" or "REFUSED", retry = false }), 2)
  end
end

--- Coroutines that a C function's callback resumed: nothing inside them can reach the scheduler.
local blocked = setmetatable({}, { __mode = "k" })

--- What a yield cannot cross, by function.
local BOUNDARIES = {
  [table.sort] = "a table.sort", [string.gsub] = "a string.gsub",
  [table.foreach] = "a table.foreach", [table.foreachi] = "a table.foreachi", [load] = "a load",
}

local function boundary_at(co, level)
  while true do
    local info
    if co then
      info = debug.getinfo(co, level, "f")
    else
      info = debug.getinfo(level, "f")
    end
    if not info then
      return nil
    end
    if BOUNDARIES[info.func] then
      return BOUNDARIES[info.func]
    end
    level = level + 1
  end
end

--- Raises, naming `what`, if the scheduler cannot be reached from here.
---@param what string  such as "mpreg.call"
function M.need_yieldable(what)
  local co = co_running()
  local boundary
  if not co_isyieldable() then
    boundary = boundary_at(nil, 3)
  elseif blocked[co] then
    boundary = blocked[co]
  else
    return
  end
  error(failure.new("FAILED_PRECONDITION",
    ("%s cannot be used inside %s callback: it would have to wait there"):format(what,
      boundary or "a C function's"),
    { reason = "CANNOT_WAIT_HERE", hint = "do it before, and use the results in the callback" }), 3)
end

--- Coroutines that functions made; the others are the worker's.
local made = setmetatable({}, { __mode = "k" })

local function create(f)
  local co = co_create(f)
  made[co] = true
  return co
end

--- Coroutines that wait for the platform: only the call that they wait in may go on with them.
local waiting = setmetatable({}, { __mode = "k" })

--- The coroutine library for modules. `mark` is what the platform's yields hand out.
local function coroutines(mark)
  local function pass(co, ok, first, ...)
    if ok and first == mark then
      waiting[co] = true
      co_yield(mark)
      waiting[co] = nil
      return pass(co, co_resume(co))
    end
    return ok, first, ...
  end
  local function resume(co, ...)
    if waiting[co] then
      return false, "cannot resume a coroutine that waits in another call"
    end
    if not co_isyieldable() then
      blocked[co] = boundary_at(nil, 2) or "a C function's"
    elseif blocked[co] then
      blocked[co] = nil
    end
    local outer = co_running()
    if outer and blocked[outer] then
      blocked[co] = blocked[outer]
    end
    return pass(co, co_resume(co, ...))
  end
  local function unwrap(ok, ...)
    if not ok then
      error((...), 0)
    end
    return ...
  end
  local lib = copy(coroutine)
  lib.create, lib.resume = create, resume
  function lib.wrap(f)
    local co = create(f)
    return function(...) return unwrap(resume(co, ...)) end
  end
  function lib.yield(...)
    local co = co_running()
    if not (co and made[co]) then
      error("attempt to yield from outside a coroutine", 2)
    end
    return co_yield(...)
  end
  return lib
end

local function text_streams(write)
  local stream = {}
  local methods = {
    write = function(self, ...)
      for i = 1, select("#", ...) do
        local value = select(i, ...)
        if type(value) ~= "string" and type(value) ~= "number" then
          error(("bad argument #%d to 'write' (string expected, got %s)"):format(i, type(value)), 2)
        end
        write(tostring(value))
      end
      return self
    end,
    flush = function() return true end,
    setvbuf = function() return true end,
    close = function() return true end,
    seek = function() return nil, "it is not a file" end,
    read = function() return nil, "it is not readable" end,
    lines = function() return function() return nil end end,
  }
  for name, method in pairs(methods) do
    stream[name] = method
  end
  return stream
end

local function input_output(write)
  local lib = copy(io)
  local out = text_streams(write)
  lib.stdout, lib.stderr = out, out
  function lib.write(...) return out:write(...) end
  function lib.output(file)
    if file ~= nil then
      error("io.output cannot be redirected: open a file and write to it", 2)
    end
    return out
  end
  return lib
end

local function system()
  local lib = copy(os)
  lib.exit = refused("os.exit", "it would end the worker with all its calls; return, or raise an "
    .. "error")
  lib.setlocale = refused("os.setlocale", "it would change how all functions read numbers")
  return lib
end

--- What would change the compiler or the collector for all modules is refused.
local function machine(env)
  local lib = copy(jit)
  lib.opt = nil
  for _, name in ipairs { "on", "off", "flush" } do
    local change = jit[name]
    lib[name] = function(f, recursive)
      if f == true then
        f = debug.getinfo(2, "f").func
      end
      if type(f) ~= "function" then
        error(("jit.%s without a function would change it for all modules"):format(name), 2)
      end
      change(f, recursive)
    end
  end
  env.jit = lib
  local harmless = { count = true, collect = true, step = true }
  function env.collectgarbage(what, n)
    what = what or "collect"
    if not harmless[what] then
      error(("collectgarbage(\"%s\") would change it for all modules"):format(tostring(what)), 2)
    end
    return collectgarbage(what, n)
  end
end

--- The FFI knows one set of C types for all modules: the same declaration may come again (from
--- another module, or from another version of this one), which the FFI itself refuses.
local declared = {}

---@return table
function M.ffi()
  local lib = copy(require "ffi")
  local cdef = lib.cdef
  function lib.cdef(text, ...)
    if select("#", ...) > 0 or type(text) ~= "string" then
      return cdef(text, ...)
    end
    if not declared[text] then
      cdef(text)
      declared[text] = true
    end
  end
  return lib
end

local function loaders(env)
  local function load_text(chunk, name, mode, chunk_env)
    if mode ~= nil and not tostring(mode):find("t", 1, true) then
      return nil, "bytecode is refused"
    end
    return load(chunk, name, "t", chunk_env == nil and env or chunk_env)
  end
  env.load = load_text
  function env.loadstring(text, name)
    if type(text) ~= "string" then
      error("bad argument #1 to 'loadstring' (string expected, got " .. type(text) .. ")", 2)
    end
    return load(text, name, "t", env)
  end
  local why = "a module's code is what the node loaded; use require"
  env.dofile, env.loadfile = refused("dofile", why), refused("loadfile", why)
end

local function environments(env)
  function env.getfenv(f)
    if f == 0 then
      return env
    end
    -- No tail call: levels count frames.
    local found = getfenv(type(f) == "function" and f or (f or 1) + 1)
    return found
  end
  function env.setfenv(f, t)
    if type(f) == "number" then
      if f == 0 then
        error("the environment of a worker cannot be changed", 2)
      end
      f = f + 1
    end
    local changed = setfenv(f, t)
    return changed
  end
end

--- Makes an environment.
---@param host { mark: any, write: fun(text: string) }
---@return table
function M.new(host)
  local env = {}
  for _, name in ipairs(GLOBALS) do
    env[name] = _G[name]
  end
  for _, name in ipairs(COPIED) do
    env[name] = copy(_G[name])
  end
  env._G = env
  env.coroutine = coroutines(host.mark)
  env.io = input_output(host.write)
  env.os = system()
  env.debug = { traceback = debug.traceback, getinfo = debug.getinfo, getlocal = debug.getlocal,
    getupvalue = debug.getupvalue, upvalueid = debug.upvalueid }
  env.string.dump = nil
  machine(env)
  loaders(env)
  environments(env)
  function env.print(...)
    local parts = {}
    for i = 1, select("#", ...) do
      parts[i] = tostring((select(i, ...)))
    end
    host.write(table.concat(parts, "\t") .. "\n")
  end
  env.package = { loaded = {}, preload = {}, path = "", cpath = "", config = package.config }
  return env
end

--- Once a worker: what all environments share must not be changed through it.
function M.protect()
  local strings = getmetatable("")
  strings.__metatable = { __index = copy(string) }
end

return M
