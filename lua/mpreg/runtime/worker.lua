--- What the worker's C code calls: it is loaded once, with the C functions in "mpreg.worker".

local native = require "mpreg.worker"
local codec = require "mpreg.codec"
local failure = require "mpreg.runtime.failure"
local module = require "mpreg.runtime.module"
local output = require "mpreg.runtime.output"
local sandbox = require "mpreg.runtime.sandbox"

local take, give = native.take, native.give

--- Every coroutine of the worker's: one call after the other.
local function body(f)
  while true do
    f = give(f(take()))
  end
end
jit.off(body)

--- What a call begins with whose module has no instance for its release yet: it is loaded now, in
--- the call's own time.
local function enter(...)
  return native.enter(module.find(native.called()))(...)
end

local function is_sendable(value)
  return codec.encode(value) ~= nil
end

local function is_user(func)
  return module.is_environment(getfenv(func))
end

--- The ERROR table for an error; `co` is the coroutine that died of it, or nil; `func` what it ran.
local function describe(err, co, func)
  local frames = {}
  if co then
    local node = native.node()
    frames = failure.frames(co, 0, is_user, module.names, node)
    if func ~= enter then
      failure.add_entry(frames, func, module.names, node)
    end
  end
  return failure.from(err, frames, is_sendable)
end

--- Workers do not all draw the same numbers.
local function seed()
  local file = io.open("/dev/urandom", "rb")
  local bytes = file and file:read(6)
  if file then
    file:close()
  end
  local number = os.time()
  for i = 1, #(bytes or "") do
    number = (number * 256 + bytes:byte(i)) % 2 ^ 52
  end
  math.randomseed(number)
end

seed()
sandbox.protect()
jit.opt.start("maxtrace=8000", "maxmcode=16384")

return {
  body = body,
  enter = enter,
  add = module.add,
  load = module.load,
  unload = module.unload,
  open = module.open,
  close = module.close,
  failure = describe,
  flush = output.flush,
  error_metatable = failure.metatable,
}
