--- A REPL session: evaluates what the host sends, in an environment that lasts.
---
--- Globals of a session are its variables; `_` is the last value. Below them are Lua's libraries,
--- `mpreg`, and every function of the cluster under its plain name: `quakes.filter(rows, 5)` is a
--- call like any client's.

local codec = require "mpreg.codec"
local cluster = require "mpreg.session.cluster"
local complete = require "mpreg.session.complete"
local failure = require "mpreg.runtime.failure"
local native = require "mpreg.session.native"
local value_text = require "mpreg.render.value"

local OUTPUT_BYTES = 65536 -- in one event

--- The environment, and the request that is being answered.
local env, current

--- Lua's own libraries, under the session's variables.
local library = {}
for name, value in pairs(_G) do library[name] = value end
library._G = nil

--- A long text goes in parts, none of which ends within a character.
local function write(text)
  local from = 1
  while from <= #text do
    local last = math.min(#text, from + OUTPUT_BYTES - 1)
    for back = 0, last < #text and 3 or -1 do
      local after = text:byte(last - back + 1)
      if after < 0x80 or after > 0xbf then
        last = last - back
        break
      end
    end
    local event = { event = "output", text = text:sub(from, last) }
    native.send("event", current, (codec.encode(event)))
    from = last + 1
  end
end

function library.print(...)
  local parts = {}
  for i = 1, select("#", ...) do parts[i] = tostring((select(i, ...))) end
  write(table.concat(parts, "\t") .. "\n")
end

library.io = setmetatable({
  write = function(...)
    local parts = { ... }
    for i = 1, #parts do
      local kind = type(parts[i])
      if kind ~= "string" and kind ~= "number" then
        error(("bad argument #%d to 'write' (string expected, got %s)"):format(i, kind), 2)
      end
    end
    write(table.concat(parts))
    return io.stdout
  end,
}, { __index = io })

library.mpreg = cluster.mpreg

--- Functions of Lua's libraries are shown by their names.
local function name_functions(prefix, t)
  for name, value in pairs(t) do
    if type(value) == "function" and type(name) == "string" then
      cluster.names[value] = "function " .. prefix .. name
    end
  end
end
name_functions("", library)
for _, name in ipairs { "string", "table", "math", "io", "os", "debug", "coroutine", "bit", "jit",
  "package", "ffi" } do
  if type(library[name]) == "table" then name_functions(name .. ".", library[name]) end
end
name_functions("mpreg.", cluster.mpreg)

function library.require(name)
  if name == "mpreg" then return cluster.mpreg end
  return require(name)
end

env = setmetatable({}, {
  __index = function(_, name)
    local value = library[name]
    if value ~= nil then return value end
    return cluster.modules()[name]
  end,
})
library._G = env

--- Chunks see the session's variables, also those that are loaded here.
local function environment_of(...)
  if select("#", ...) > 0 then return (...) end
  return env
end
function library.load(chunk, name, mode, ...)
  return load(chunk, name, mode, environment_of(...))
end
function library.loadstring(text, name) return load(text, name, nil, env) end
function library.loadfile(path, mode, ...) return loadfile(path, mode, environment_of(...)) end
function library.dofile(path)
  local chunk, problem = loadfile(path, nil, env)
  if not chunk then error(problem, 2) end
  return chunk()
end

--- --- Evaluating ---

local function is_user(func)
  local f = getfenv(func)
  return f == env
end

local function is_sendable(value) return codec.encode(value) ~= nil end

--- What the handler of errors gives: the error, and where it arose.
local function locate(err)
  local node = native.node()
  local frames = failure.frames(nil, 3, is_user, {}, node)
  return { err = err, frames = frames }
end

--- An expression's chunk gives nil first: `return f()` would be a tail call, and leave no frame.
---@return function? chunk
---@return string|boolean  what is wrong, or whether the chunk is an expression
local function compile(text, name)
  local chunk, of_expression = load("return nil, " .. text, "=" .. name, "t", env)
  if chunk then return chunk, true end
  local of_statement
  chunk, of_statement = load(text, "=" .. name, "t", env)
  if chunk then return chunk, false end
  local is_expression = of_expression:find("near '<eof>'", 1, true)
    or of_statement:find("'=' expected near", 1, true)
  return nil, is_expression and of_expression or of_statement
end

local function interrupted()
  return failure.new("CANCELLED", "interrupted", { reason = "CANCELLED" })
end

--- The ERROR of a chunk that failed.
local function fault_of(problem)
  if native.is_interrupted() then return interrupted() end
  if type(problem) ~= "table" or not problem.frames then -- memory ran out in the handler
    return failure.from(problem, {}, is_sendable)
  end
  if problem.err == "not enough memory" then
    return failure.new("RESOURCE_EXHAUSTED", "the session needs more memory than it may use",
      { reason = "WORKER_MEMORY", hint = "set large variables to nil, or start the node with a "
        .. "larger --worker-memory" })
  end
  return failure.from(problem.err, problem.frames, is_sendable)
end

--- Values as the answer has them.
local function answer(options, count, values)
  local limits = { columns = options.columns, color = options.color, depth = options.depth,
    items = options.items, bytes = options.bytes, total = options.total, names = cluster.names }
  local out = { count = count, text = codec.array {} }
  for i = 1, count do out.text[i] = value_text.text(values[i], limits) end
  if options.values then
    local list = codec.array {}
    for i = 1, count do list[i] = values[i] == nil and codec.null or values[i] end
    local bytes, problem = codec.encode(list)
    if not bytes then
      return nil, failure.new("INVALID_ARGUMENT", ("value%s: %s"):format(problem.path or "",
        problem.message), { reason = "UNENCODABLE", hint = problem.hint })
    end
    out.values = list
  end
  return out
end

local function pack(...) return select("#", ...), { ... } end

--- Evaluates a text: what RESULT carries, or nil and an ERROR.
local function evaluate(text, options)
  local chunk, is_expression = compile(text, options.name or "repl")
  if not chunk then
    return nil, failure.new("INVALID_ARGUMENT", is_expression, { reason = "SYNTAX_ERROR" })
  end
  cluster.refresh()
  local count, values = pack(native.run(chunk, locate))
  if not values[1] then return nil, fault_of(values[2]) end
  local skipped = is_expression and 2 or 1 -- run's true, and the nil
  count = count - skipped
  for i = 1, count + skipped do values[i] = values[i + skipped] end
  if count > 0 then env._ = values[1] end
  return answer(options, count, values)
end

local function complete_text(text)
  cluster.refresh()
  local visible = {} -- as the environment, but nothing that is asked for runs code
  for name, value in next, env do visible[name] = value end
  setmetatable(visible, { __index = library })
  local from, names = complete.complete(text, visible, cluster.functions())
  return { from = from, names = codec.array(names) }
end

--- --- The loop ---

local function reply(id, result, err)
  local bytes, problem
  if result then
    bytes, problem = codec.encode(result)
    if bytes and #bytes > native.value_bytes_max then
      bytes, err = nil, failure.new("RESOURCE_EXHAUSTED",
        "the answer is larger than --value-max allows", { reason = "TOO_LARGE" })
    elseif not bytes then
      err = failure.new("INTERNAL", "the answer cannot be sent: " .. problem.message,
        { reason = "UNENCODABLE" })
    end
  end
  if bytes then return native.send("result", id, bytes) end
  native.send("error", id, (codec.encode(err)))
end

local OPTIONS = { name = "string", columns = "number", depth = "number", items = "number",
  bytes = "number", total = "number", color = "boolean", values = "boolean" }

local function wrong_option(options)
  for name, value in pairs(options) do
    if not OPTIONS[name] then return ("EVAL has no option %s"):format(tostring(name)) end
    if type(value) ~= OPTIONS[name] then
      return ("EVAL's option %s is a %s, not a %s"):format(name, OPTIONS[name], type(value))
    end
  end
end

local function serve(id, what, options, text)
  if not text then
    return reply(id, nil, failure.new("INVALID_ARGUMENT",
      "EVAL takes [what, options] and a text", { reason = "BAD_REQUEST" }))
  end
  current = id
  local wrong = wrong_option(options)
  if wrong then
    return reply(id, nil, failure.new("INVALID_ARGUMENT", wrong, { reason = "BAD_REQUEST" }))
  end
  if what == "eval" then return reply(id, evaluate(text, options)) end
  if what == "complete" then return reply(id, complete_text(text)) end
  reply(id, nil, failure.new("INVALID_ARGUMENT",
    ("EVAL does not know what %q is: eval or complete"):format(what), { reason = "BAD_REQUEST" }))
end

return function()
  for id, what, options, text in native.read do
    serve(id, what, options, text)
    collectgarbage "step"
  end
end
