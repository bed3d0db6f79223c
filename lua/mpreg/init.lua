--- What functions, pipelines and the REPL require: `local mpreg = require "mpreg"`.
---
--- Outside a node (a unit test, say) values, errors and pipelines work as they do inside; what
--- needs the platform raises an ERROR that says so.

local failure = require "mpreg.runtime.failure"
local options = require "mpreg.runtime.options"

local mpreg = {}

local function optional(name)
  local ok, module = pcall(require, name)
  return ok and module or nil
end

local codec = optional "mpreg.codec"
local native = package.loaded["mpreg.worker"]

--- --- Values ---

local ArrayMark, BytesMark = { __name = "mpreg.array" }, { __name = "mpreg.bytes" }
function BytesMark.__tostring(b) return b[1] end

local function plain_null()
  local cjson = optional "cjson"
  return cjson and cjson.null or setmetatable({}, { __tostring = function() return "null" end })
end

--- Null inside a table (as an argument or a result, nil does).
mpreg.null = codec and codec.null or plain_null()

--- Marks a table as a list, so that it is one also when it is empty.
---@generic T: table
---@param t? T
---@return T
function mpreg.array(t)
  if t ~= nil and type(t) ~= "table" then
    error("mpreg.array: a table is expected, not a " .. type(t), 2)
  end
  return codec and codec.array(t or {}) or setmetatable(t or {}, ArrayMark)
end

--- A string that is sent as bytes, even if it spells text.
---@param s string
---@return table
function mpreg.bytes(s)
  if type(s) ~= "string" then
    error("mpreg.bytes: a string is expected, not a " .. type(s), 2)
  end
  return codec and codec.bytes(s) or setmetatable({ s }, BytesMark)
end

--- --- Errors ---

--- Makes an ERROR, for `error(…)` or to return after nil.
---@param code string  a canonical code; any other text becomes the reason
---@param message string
---@param fields? table  reason, hint, `retry = false`, and what else shall travel
---@return table
function mpreg.error(code, message, fields)
  if type(code) ~= "string" then
    error("mpreg.error: the code must be a string, not a " .. type(code), 2)
  end
  if fields ~= nil and type(fields) ~= "table" then
    error("mpreg.error: the fields must be a table, not a " .. type(fields), 2)
  end
  return failure.new(code, tostring(message), fields)
end

--- --- Calls ---

local need_yieldable

--- Raises unless a function runs on a node and may wait here.
local function need_call(what)
  if not native then
    error(failure.new("FAILED_PRECONDITION",
      what .. " works only in a function that runs on a node", { reason = "NOT_ON_A_NODE" }), 3)
  end
  if not native.in_call() then
    error(failure.new("FAILED_PRECONDITION",
      what .. " cannot be used while a module loads: only its functions can call others",
      { reason = "NOT_IN_CALL" }), 3)
  end
  need_yieldable(what)
end

local function check_name(fun, what)
  if type(fun) ~= "string" then
    error(failure.new("INVALID_ARGUMENT",
      ("%s: the function's name must be a string, not a %s"):format(what, type(fun)),
      { reason = "BAD_ARGUMENT" }), 3)
  end
  if #fun > 512 then
    error(failure.new("INVALID_ARGUMENT", what .. ": the function's name is too long",
      { reason = "BAD_ARGUMENT" }), 3)
  end
end

local function finish()
  native.wait()
  local _, ok, value = native.event()
  if not ok then
    error(value, 0)
  end
  return value
end

local function finish_try()
  native.wait()
  local _, ok, value = native.event()
  if not ok then
    return nil, value
  end
  return value
end

--- Calls a function of the cluster and gives its result; raises its ERROR. May yield.
---@param fun string  module.function
---@param ... any
---@return any
function mpreg.call(fun, ...)
  need_call("mpreg.call")
  check_name(fun, "mpreg.call")
  native.begin(0, nil, fun, ...)
  return finish()
end

--- Like call, but gives nil and the ERROR instead of raising it. May yield.
---@param fun string
---@param ... any
---@return any value
---@return table? err
function mpreg.try(fun, ...)
  need_call("mpreg.try")
  check_name(fun, "mpreg.try")
  native.begin(0, nil, fun, ...)
  return finish_try()
end

---@class mpreg.CallOptions
---@field needs? string[]  resources that the node must have
---@field version? string  such as ">=1.0 <2"
---@field on? string  a node's name
---@field timeout? string|number  "5s", or seconds
---@field retries? integer

--- Calls with options: `mpreg.with{ needs = {"gpu"}, timeout = "5s" }.call("models.train", x)`.
---@param opts mpreg.CallOptions
---@return { call: fun(fun: string, ...): any, try: fun(fun: string, ...): any, table? }
function mpreg.with(opts)
  local checked = options.check(opts, 2)
  local encoded = codec and next(checked) ~= nil and codec.encode(checked) or nil
  return {
    call = function(fun, ...)
      need_call("call")
      check_name(fun, "call")
      native.begin(0, encoded, fun, ...)
      return finish()
    end,
    try = function(fun, ...)
      need_call("try")
      check_name(fun, "try")
      native.begin(0, encoded, fun, ...)
      return finish_try()
    end,
  }
end

local function check_all(calls)
  if type(calls) ~= "table" then
    error("mpreg.all: a list of calls { fun, … } is expected, not a " .. type(calls), 3)
  end
  for i = 1, #calls do
    local call = calls[i]
    if type(call) ~= "table" or type(call[1]) ~= "string" then
      error(failure.new("INVALID_ARGUMENT",
        ("mpreg.all: call %d is not of the form { \"module.function\", … }"):format(i),
        { reason = "BAD_ARGUMENT", index = i }), 3)
    end
  end
end

local function table_end(t)
  local last = 0
  for key in pairs(t) do
    if type(key) == "number" and key > last then
      last = key
    end
  end
  return last
end

local function begin_all(calls)
  for i = 1, #calls do
    local call = calls[i]
    native.begin(i, nil, call[1], unpack(call, 2, call.n or table_end(call)))
  end
end

--- Calls side by side and gives the results in order (a nil result is `mpreg.null`). The first that
--- fails cancels the others and is raised, with its place as `index`. May yield.
---@param calls any[][]  { { "module.function", … }, … }
---@return any[]
function mpreg.all(calls)
  need_call("mpreg.all")
  check_all(calls)
  local results = mpreg.array {}
  local ok, err = pcall(begin_all, calls)
  if not ok then
    native.drop()
    error(err, 0)
  end
  for i = 1, #calls do
    results[i] = mpreg.null
  end
  for _ = 1, #calls do
    native.wait()
    local position, is_fine, value = native.event()
    if not is_fine then
      native.drop()
      if position > 0 and type(value) == "table" and value.index == nil then
        value.index = position
      end
      error(value, 0)
    end
    if value ~= nil then
      results[position] = value
    end
  end
  return results
end

--- Waits; other calls run meanwhile. May yield.
---@param seconds number
function mpreg.sleep(seconds)
  if type(seconds) ~= "number" or not (seconds >= 0 and seconds < math.huge) then
    error(failure.new("INVALID_ARGUMENT",
      "mpreg.sleep: seconds must be a number, zero or more and finite",
      { reason = "BAD_ARGUMENT" }), 2)
  end
  need_call("mpreg.sleep")
  native.sleep(seconds)
  finish()
end

--- --- Where the function runs ---

local function need_node(what)
  if not native then
    error(failure.new("FAILED_PRECONDITION",
      what .. " works only in a function that runs on a node", { reason = "NOT_ON_A_NODE" }), 3)
  end
end

--- A resource of this node: a fresh copy of its data, true if it has none, nil if the node lacks
--- it.
---@param name string
---@return any
function mpreg.resource(name)
  if type(name) ~= "string" then
    error("mpreg.resource: the name must be a string, not a " .. type(name), 2)
  end
  need_node("mpreg.resource")
  return native.resource(name)
end

--- This node.
---@return { name: string, cluster: string, addr: string }
function mpreg.node()
  need_node("mpreg.node")
  local name, cluster, addr = native.node()
  return { name = name, cluster = cluster, addr = addr }
end

---@class mpreg.Context
---@field run_id? string
---@field step? string
---@field index? integer  the element's place, from 1
---@field attempt? integer  from 1
---@field deadline_ms? number  what is left of the call's time
---@field caller? string

--- The call that runs. Fields that do not apply are nil.
---@return mpreg.Context
function mpreg.context()
  need_node("mpreg.context")
  if not native.in_call() then
    return {}
  end
  local run_id, step, index, attempt, caller, deadline_ms = native.context()
  return { run_id = run_id, step = step, index = index, attempt = attempt, caller = caller,
    deadline_ms = deadline_ms }
end

--- --- Topics ---

--- Publishes a message: whoever subscribes to its topic, on any node, gets it at most once. It is
--- on its way when this returns, in order with what the function does afterwards; nothing is waited
--- for but room. Raises an ERROR for a bad topic, and for data that cannot be sent.
---@param topic string  words of letters, digits, _ and -, joined by dots
---@param data any
function mpreg.publish(topic, data)
  if type(topic) ~= "string" then
    error(failure.new("INVALID_ARGUMENT",
      "mpreg.publish: the topic must be a string, not a " .. type(topic),
      { reason = "BAD_TOPIC" }), 2)
  end
  need_node("mpreg.publish")
  if not native.in_call() then
    error(failure.new("FAILED_PRECONDITION",
      "mpreg.publish cannot be used while a module loads: only its functions can publish",
      { reason = "NOT_IN_CALL" }), 2)
  end
  native.publish(topic, data)
end

--- --- Logging ---

--- Messages for the node's log, with run and step; outside a node they go to stderr.
mpreg.log = {}

local function logger(name, level)
  mpreg.log[name] = function(message, fields)
    if fields ~= nil and type(fields) ~= "table" then
      error(("mpreg.log.%s: the fields must be a table, not a %s"):format(name, type(fields)), 2)
    end
    if native then
      native.log(level, tostring(message), fields)
    else
      io.stderr:write(name, ": ", tostring(message), "\n")
    end
  end
end
for level, name in ipairs { "debug", "info", "warn", "error" } do
  logger(name, level - 1)
end

--- --- Pipelines ---

--- Builds a graph; lua/mpreg/pipeline.lua says how.
---@param name string
---@param builder function
---@param opts? table
---@return table
function mpreg.pipeline(name, builder, opts)
  return require("mpreg.pipeline").new(name, builder, opts)
end

need_yieldable = native and require("mpreg.runtime.sandbox").need_yieldable

return mpreg
