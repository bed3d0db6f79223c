--- What a session has of its cluster: `mpreg`, and the functions of all nodes under plain names.

local client = require "mpreg.client"
local failure = require "mpreg.runtime.failure"
local native = require "mpreg.session.native"
local plain = require "mpreg"

local M = {}

--- Functions and modules of ours → what they are, for whoever prints them.
---@type table<any, string>
M.names = setmetatable({}, { __mode = "k" })

local connection
local is_fresh = false
local known = {} -- module → sorted names of its functions
local roots = {} -- global name → table of functions, and of what lies below
local key = "" -- of what `roots` was made of

--- Raises an ERROR that came from elsewhere as it is.
local function raise(err) error(setmetatable(err, failure.metatable), 0) end

local function connected()
  if connection then return connection end
  local _, _, addr = native.node()
  local c, err = client.connect { nodes = { addr } }
  if not c then raise(err) end
  connection = c
  return c
end

--- A connection that broke is made anew with the next request.
local function given(value, err)
  if err == nil then return value end
  if err.reason == "CONNECTION_LOST" or err.reason == "NO_NODE" then
    connection:close()
    connection = nil
  end
  raise(err)
end

local function call(fun, ...) return given(connected():call(fun, ...)) end

--- --- Plain names ---

local function list_functions()
  local answer = given(connected():query "functions")
  local modules, parts = {}, {}
  for _, f in ipairs(answer.functions or {}) do
    local list = modules[f.module] or {}
    modules[f.module] = list
    list[#list + 1] = f.name:sub(#f.module + 2)
    parts[#parts + 1] = f.name
  end
  for _, list in pairs(modules) do table.sort(list) end
  table.sort(parts)
  return modules, table.concat(parts, " ")
end

--- The table that stands for a module, with those that its dotted name leads through.
local function place_of(module)
  local at, path
  for part in module:gmatch "[^.]+" do
    path = path and path .. "." .. part or part
    local above = at or roots
    local inner = rawget(above, part)
    if type(inner) ~= "table" then
      inner = {}
      above[part] = inner
      M.names[inner] = "module " .. path
    end
    at = inner
  end
  return at
end

--- A module below another one hides a function of that name, which mpreg.call still reaches.
local function build()
  local places = {}
  roots = {}
  for module in pairs(known) do
    if module ~= "mpreg" then places[module] = place_of(module) end
  end
  for module, place in pairs(places) do
    for _, name in ipairs(known[module]) do
      local full = module .. "." .. name
      local function f(...) return call(full, ...) end
      M.names[f] = "function " .. full
      if place[name] == nil then place[name] = f end
    end
  end
end

--- What is known of the cluster's functions may be old from now on.
function M.refresh() is_fresh = false end

local function look()
  if is_fresh then return end
  is_fresh = true
  local modules, text = list_functions()
  if text == key then return end
  known, key = modules, text
  build()
end

--- Global name → the module of that name.
---@return table<string, table>
function M.modules()
  look()
  return roots
end

--- Module → sorted names of its functions.
---@return table<string, string[]>
function M.functions()
  look()
  return known
end

--- --- mpreg ---

local mpreg = {}

--- Calls a function of the cluster; raises its ERROR.
mpreg.call = call

--- Like call, but gives nil and the ERROR.
function mpreg.try(fun, ...)
  local value, err = connected():call(fun, ...)
  if err ~= nil then return nil, setmetatable(err, failure.metatable) end
  return value
end

function mpreg.with(opts)
  return {
    call = function(fun, ...) return given(connected():with(opts):call(fun, ...)) end,
    try = function(fun, ...) return connected():with(opts):call(fun, ...) end,
  }
end

--- Calls side by side, as steps of one run: their results in order.
function mpreg.all(calls)
  local steps, output = plain.array {}, plain.array {}
  for i, c in ipairs(calls) do
    local args = plain.array {}
    for k = 2, c.n or #c do args[k - 1] = c[k] == nil and plain.null or { ["$lit"] = c[k] } end
    steps[i] = { name = "call" .. i, call = c[1], args = args }
    output[i] = { ["$ref"] = "call" .. i }
  end
  if #steps == 0 then return plain.array {} end
  local run = given(connected():run({ name = "all", steps = steps, output = output }))
  if run.status ~= "succeeded" then
    local err = run.error
    err.index = tonumber(tostring(err.step):match "^call(%d+)$")
    raise(err)
  end
  return run.output
end

--- Runs a pipeline, a graph, or (by name) a pipeline of the cluster: the run object.
---@param what table|string
---@param input? any
---@param opts? { timeout?: string|number, trace?: boolean }
---@return table
function mpreg.run(what, input, opts)
  opts = opts or {}
  return given(connected():run(what, { input = input, timeout = opts.timeout, trace = opts.trace }))
end

--- Publishes a message; it is accepted when this returns.
function mpreg.publish(topic, data) given(connected():publish(topic, data)) end

function mpreg.sleep(seconds) return call("mpreg.sleep", seconds) end

--- The node that the session is on.
function mpreg.node()
  local name, cluster, addr = native.node()
  return { name = name, cluster = cluster, addr = addr }
end

M.mpreg = setmetatable(mpreg, { __index = plain })
M.names[M.mpreg] = "module mpreg"

return M
