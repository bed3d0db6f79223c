--- Pipelines: Lua that builds a graph.
---
--- The builder runs once, where the pipeline is written, and describes steps; nothing is called
--- then. What it gives is a graph in plain data, the same that one could write in JSON:
---
---     return mpreg.pipeline("quakes", function(p, input)
---       local events = p "events" { "quakes.load", input.file, needs = { "catalogue" } }
---       local strong = p "strong" { "quakes.filter", events.features, input.min }
---       return { rows = strong }
---     end)
---
--- A reference (`events`, `events.features`, `input.file`) stands for a value that does not exist
--- yet. It is a userdata, because only a userdata lets LuaJIT refuse all that one cannot do with a
--- value that is not there: arithmetic, `..`, `#`, calls, order, text.
---
--- Needs no node: a pipeline can be unit-tested in any LuaJIT.

local suggest = require "mpreg.suggest"
local units = require "mpreg.units"

-- With the C codec the marker of lists is its own; without it (plain LuaJIT) any marker serves.
local has_codec, codec = pcall(require, "mpreg.codec")
if not has_codec then codec = nil end

local M = {}

local DEPTH_MAX = 128

local List = { __name = "mpreg.array" }

local function list(t)
  if codec then return codec.array(t) end
  return setmetatable(t, List)
end

local Pipeline = { __name = "mpreg.pipeline" }

-- What each reference stands for: { builder, kind, path… }. The references themselves are empty.
local references = setmetatable({}, { __mode = "k" })

-- -------------------------------------------------------------------------------------------------
-- References
-- -------------------------------------------------------------------------------------------------

local Reference = newproxy(true)

local function reference(state)
  local ref = newproxy(Reference)
  references[ref] = state
  return ref
end

--- How a reference is written in a graph: `events.features[1]["any key"]`.
local function path_text(state)
  local parts = { state.root }
  for i = 1, #state.path do
    local key = state.path[i]
    if type(key) == "number" then
      parts[#parts + 1] = ("[%d]"):format(key)
    elseif key:find("^[%w_-]+$") then
      parts[#parts + 1] = (#parts == 0 or parts[#parts] == "") and key or "." .. key
    else
      parts[#parts + 1] = '["' .. key:gsub('[\\"]', "\\%0") .. '"]'
    end
  end
  return table.concat(parts)
end

local function describe(state)
  if state.kind == "item" then
    local path = path_text(state)
    return path == "" and "p.item" or "p.item." .. path
  elseif state.kind == "index" then
    return "p.index"
  elseif state.kind == "default" then
    return ("p.default(%s, …)"):format(describe(state.of))
  elseif state.kind == "lit" then
    return "p.lit(…)"
  end
  return path_text(state)
end

local function forbid(what)
  return function(a, b)
    local state = references[a] or references[b]
    error(("%s stands for a result that does not exist yet: it cannot be %s here; do that in a "
      .. "function of a step"):format(describe(state), what), 2)
  end
end

do
  local mt = getmetatable(Reference)
  mt.__name = "mpreg.reference"
  mt.__metatable = false

  mt.__index = function(ref, key)
    local state = references[ref]
    if state.kind ~= "ref" and state.kind ~= "item" then
      error(("%s has no fields; index the reference first"):format(describe(state)), 2)
    end
    if type(key) == "number" then
      if key ~= math.floor(key) or key == 0 or math.abs(key) > 2 ^ 31 then
        error(("%s[%s]: a place in a list is a whole number from 1, or from -1 for its end")
          :format(describe(state), tostring(key)), 2)
      end
    elseif type(key) ~= "string" then
      error(("%s cannot be indexed with a %s, only with a name or a place")
        :format(describe(state), references[key] and "reference" or type(key)), 2)
    end
    local path = {}
    for i = 1, #state.path do path[i] = state.path[i] end
    path[#path + 1] = key
    return reference { kind = state.kind, builder = state.builder, root = state.root, path = path }
  end

  mt.__newindex = function(ref, key)
    error(("%s stands for a result that does not exist yet: its field %s cannot be set")
      :format(describe(references[ref]), tostring(key)), 2)
  end

  local arithmetic = forbid("calculated with")
  for _, name in ipairs { "__add", "__sub", "__mul", "__div", "__mod", "__pow", "__unm" } do
    mt[name] = arithmetic
  end
  mt.__concat = forbid("joined to a text")
  mt.__eq = forbid("compared")
  mt.__lt = mt.__eq
  mt.__le = mt.__eq
  mt.__len = forbid("counted")
  mt.__call = forbid("called")
  mt.__tostring = forbid("turned into text")
  mt.__pairs = forbid("walked through")
  mt.__ipairs = mt.__pairs
end

-- -------------------------------------------------------------------------------------------------
-- Values: what the user wrote, as it stands in a graph
-- -------------------------------------------------------------------------------------------------

local convert

local function key_path(path, key)
  if type(key) == "number" then return ("%s[%s]"):format(path, key) end
  if key:find("^[%a_][%w_]*$") then return ("%s.%s"):format(path, key) end
  return ("%s[%q]"):format(path, key)
end

--- Is the table a list (true) or a map (false)? Sorted keys of a map come second.
local function shape(t, path)
  local count, strings = 0, {}
  for key in pairs(t) do
    if type(key) == "number" then
      count = count + 1
    elseif type(key) == "string" then
      strings[#strings + 1] = key
    else
      error(("%s: a table with a key that is a %s cannot be sent"):format(path, type(key)), 0)
    end
  end
  if count > 0 and #strings > 0 then
    error(("%s: a table is a list or has names, not both (it has [1] and '%s')")
      :format(path, strings[1]), 0)
  end
  if count > 0 then
    for i = 1, count do
      if t[i] == nil then
        error(("%s: the list has a hole at %d; write mpreg.null for nothing"):format(path, i), 0)
      end
    end
    return true
  end
  table.sort(strings)
  return false, strings
end

--- References inside data that is taken literally would be lost: they are refused.
local function check_data(value, path, depth, why)
  if references[value] then
    error(("%s: %s cannot stand inside %s"):format(path, describe(references[value]), why), 0)
  elseif type(value) == "table" then
    if depth > DEPTH_MAX then
      error(("%s: nested deeper than %d, or a cycle"):format(path, DEPTH_MAX), 0)
    end
    for key, inner in pairs(value) do
      local name = type(key) == "number" and key or tostring(key)
      check_data(inner, key_path(path, name), depth + 1, why)
    end
  elseif type(value) == "function" or type(value) == "thread" then
    error(("%s: a %s cannot be sent"):format(path, type(value)), 0)
  end
  return value
end

local function convert_reference(context, state, path)
  if state.builder ~= context.builder then
    error(("%s: %s belongs to another pipeline"):format(path, describe(state)), 0)
  end
  if state.kind == "lit" then return { ["$lit"] = state.value } end
  if state.kind == "item" or state.kind == "index" then
    if not context.has_item then
      error(("%s: %s is known only in the arguments of a step with each=")
        :format(path, describe(state)), 0)
    end
    if state.kind == "index" then return { ["$index"] = true } end
    return { ["$item"] = path_text(state) }
  end
  if state.kind == "default" then
    return {
      ["$ref"] = path_text(state.of),
      default = convert(context, state.value, path .. ".default", 1),
    }
  end
  return { ["$ref"] = path_text(state) }
end

local function convert_table(context, t, path, depth)
  if depth > DEPTH_MAX then
    error(("%s: nested deeper than %d, or a cycle"):format(path, DEPTH_MAX), 0)
  end
  if t == context.builder then error(path .. ": p itself cannot be sent", 0) end
  local mt = getmetatable(t)
  if mt == Pipeline then error(path .. ": a pipeline cannot be an argument", 0) end
  local is_list, keys = shape(t, path)
  local out = {}
  if is_list then
    for i = 1, #t do out[i] = convert(context, t[i], key_path(path, i), depth + 1) end
    return setmetatable(out, mt)
  end
  for i = 1, #keys do
    if keys[i]:sub(1, 1) == "$" then
      local why = ("a table with the key '%s', which is taken as plain data"):format(keys[i])
      return { ["$lit"] = check_data(t, path, depth, why) }
    end
  end
  for i = 1, #keys do
    out[keys[i]] = convert(context, t[keys[i]], key_path(path, keys[i]), depth + 1)
  end
  return setmetatable(out, mt)
end

--- The value as it stands in a graph. Recursion is bounded by DEPTH_MAX.
function convert(context, value, path, depth)
  local state = references[value]
  if state then return convert_reference(context, state, path) end
  local kind = type(value)
  if kind == "table" then return convert_table(context, value, path, depth) end
  if kind == "function" or kind == "thread" or (kind == "userdata" and getmetatable(value)) then
    error(("%s: a %s cannot be sent"):format(path, kind), 0)
  end
  return value
end

-- -------------------------------------------------------------------------------------------------
-- Steps
-- -------------------------------------------------------------------------------------------------

local function wrong(option, expected, value)
  local kind = references[value] and "a reference" or "a " .. type(value)
  error(("%s: must be %s, not %s"):format(option, expected, kind), 0)
end

local function whole(minimum)
  return function(_, option, value)
    if type(value) ~= "number" or value ~= math.floor(value) or value < minimum then
      if type(value) == "number" then
        error(("%s: must be a whole number from %d, not %s"):format(option, minimum, value), 0)
      end
      wrong(option, ("a whole number from %d"):format(minimum), value)
    end
    return value
  end
end

local function text(_, option, value)
  if type(value) ~= "string" then wrong(option, "a text", value) end
  return value
end

local function names(_, option, value)
  if type(value) == "string" then value = { value } end
  if type(value) ~= "table" or references[value] then wrong(option, "a list of names", value) end
  if not shape(value, option) and next(value) then wrong(option, "a list of names", value) end
  local out = {}
  for i = 1, #value do
    if type(value[i]) ~= "string" then wrong(("%s[%d]"):format(option, i), "a name", value[i]) end
    out[i] = value[i]
  end
  return list(out)
end

local function step_names(context, option, value)
  if references[value] or type(value) == "string" then value = { value } end
  if type(value) ~= "table" then wrong(option, "a step or a list of steps", value) end
  local out = {}
  for i = 1, #value do
    local state = references[value[i]]
    if not state then
      out[i] = value[i]
    elseif state.kind ~= "ref" or state.root == "input" then
      error(("%s[%d]: %s is no step"):format(option, i, describe(state)), 0)
    elseif state.builder ~= context.builder then
      error(("%s[%d]: %s belongs to another pipeline"):format(option, i, describe(state)), 0)
    else
      out[i] = state.root
    end
  end
  return names(context, option, out)
end

local function condition(context, option, value)
  local state = references[value]
  if not state or (state.kind ~= "ref" and state.kind ~= "default") then
    wrong(option, "a reference", value)
  end
  return convert(context, value, option, 1)
end

local function each(context, option, value)
  local state = references[value]
  if state and (state.kind == "ref" or state.kind == "default") then
    return convert(context, value, option, 1)
  end
  if state or type(value) ~= "table" then wrong(option, "a reference or a list", value) end
  if next(value) == nil then return list {} end
  if not shape(value, option) then wrong(option, "a list (this table has names)", value) end
  return convert(context, value, option, 1)
end

local function on_error(context, option, value)
  if value == "fail" or value == "skip" then return value end
  if type(value) ~= "table" or value.default == nil or next(value, next(value)) then
    error(option .. ': must be "fail", "skip" or { default = value }', 0)
  end
  check_data(value.default, option .. ".default", 1, "a default of on_error")
  return { default = convert(context, value.default, option .. ".default", 1) }
end

local function duration(_, option, value)
  if type(value) ~= "string" then wrong(option, 'a duration such as "5s"', value) end
  local ms, problem = units.duration_ms(value)
  if not ms then error(("%s: %s"):format(option, problem), 0) end
  return ms
end

-- Option → how it is checked, and the key that it becomes if that is another one.
local OPTIONS = {
  needs = { names },
  each = { each },
  when = { condition },
  unless = { condition },
  after = { step_names },
  retries = { whole(0) },
  backoff_ms = { whole(0) },
  timeout_ms = { whole(1) },
  timeout = { duration, "timeout_ms" },
  on_error = { on_error },
  version = { text },
  on = { text },
  cluster = { text },
  concurrency = { whole(1) },
}

local OPTION_NAMES = {}
for name in pairs(OPTIONS) do OPTION_NAMES[#OPTION_NAMES + 1] = name end
table.sort(OPTION_NAMES)

local function step_arguments(context, definition, path)
  local out = {}
  local last = table.maxn(definition)
  for i = 2, last do
    if definition[i] == nil then
      error(("%s: argument %d is nil, and others follow; write mpreg.null for nothing")
        :format(path, i - 1), 0)
    end
    out[i - 1] = convert(context, definition[i], ("%s: argument %d"):format(path, i - 1), 1)
  end
  return list(out)
end

--- The step as it stands in the graph. Raises texts without a place; the caller adds it.
local function build_step(builder, name, definition)
  local path = ("step '%s'"):format(name)
  if type(definition) ~= "table" then
    error(("%s: must be a table { \"module.function\", arguments…, options… }"):format(path), 0)
  end
  if type(definition[1]) ~= "string" then
    error(("%s: its first element must be the function's name, such as \"module.function\"")
      :format(path), 0)
  end
  local context = { builder = builder, has_item = definition.each ~= nil }
  local step = { name = name, call = definition[1] }
  local given = {}
  for key in pairs(definition) do
    if type(key) == "string" then
      given[#given + 1] = key
    elseif type(key) ~= "number" or key < 1 or key ~= math.floor(key) then
      error(("%s: unknown option [%s]"):format(path, tostring(key)), 0)
    end
  end
  table.sort(given)
  for i = 1, #given do
    local key = given[i]
    local option = OPTIONS[key]
    if not option then
      error(("%s: unknown option '%s'%s"):format(path, key, suggest.question(key, OPTION_NAMES)), 0)
    end
    local target = option[2] or key
    if step[target] then error(("%s: both timeout and timeout_ms are given"):format(path), 0) end
    -- Items are known in the arguments alone.
    local option_context = { builder = builder, has_item = false }
    step[target] = option[1](option_context, ("%s: %s"):format(path, key), definition[key])
  end
  step.args = step_arguments(context, definition, path)
  return step
end

--- Runs `f`; a text that it raises gets the place `level` levels above here.
local function checked(level, f, ...)
  local ok, result = pcall(f, ...)
  if not ok then
    if type(result) == "string" then error(result, level + 1) end
    error(result, 0)
  end
  return result
end

local function check_step_name(name)
  if type(name) ~= "string" then error("a step's name must be a text, not a " .. type(name), 0) end
  if name == "input" then
    error("'input' is no step name: it stands for the run's input", 0)
  end
  if not name:find("^[%w_][%w_-]*$") or #name > 64 then
    error(("'%s' is no step name: use up to 64 letters, digits, _ and -"):format(name), 0)
  end
  return name
end

-- -------------------------------------------------------------------------------------------------
-- The builder's `p`
-- -------------------------------------------------------------------------------------------------

local Builder = { __name = "mpreg.builder" }

-- What a builder has gathered, by its `p`: { steps, open, is_done }.
local builds = setmetatable({}, { __mode = "k" })

function Builder.__call(p, name)
  local build = builds[p]
  if build.is_done then error("the pipeline is built already: no steps can be added", 2) end
  checked(2, check_step_name, name)
  local info = debug.getinfo(2, "Sl")
  local place = info and ("%s:%d"):format(info.short_src, info.currentline) or "?"
  build.open[name] = place
  return function(definition)
    if build.is_done then error("the pipeline is built already: no steps can be added", 2) end
    build.open[name] = nil
    build.steps[#build.steps + 1] = checked(2, build_step, p, name, definition)
    return reference { kind = "ref", builder = p, root = name, path = {} }
  end
end

function Builder.__index(_, key)
  error(("p.%s is unknown%s"):format(tostring(key),
    suggest.question(tostring(key), { "item", "index", "default", "lit" })), 2)
end

function Builder.__newindex(_, key)
  error(("p.%s cannot be set"):format(tostring(key)), 2)
end

local function new_builder()
  local p = {}
  builds[p] = { steps = {}, open = {}, is_done = false }
  rawset(p, "item", reference { kind = "item", builder = p, root = "", path = {} })
  rawset(p, "index", reference { kind = "index", builder = p, root = "", path = {} })
  rawset(p, "default", function(ref, value)
    local state = references[ref]
    if not state or state.kind ~= "ref" then
      error("p.default(reference, value): the first argument must be a reference to a step or the "
        .. "input", 2)
    end
    return reference { kind = "default", builder = state.builder, of = state, value = value }
  end)
  rawset(p, "lit", function(value)
    checked(2, check_data, value, "p.lit", 1, "p.lit(…)")
    return reference { kind = "lit", builder = p, value = value }
  end)
  return setmetatable(p, Builder)
end

-- LuaJIT compares values of different types without asking a metatable, so its own text is amended.
local function amend(message)
  if type(message) ~= "string" then return message end
  if message:find("attempt to compare", 1, true) and message:find("userdata", 1, true) then
    return message .. " (a reference stands for a result that does not exist yet: compare it in a "
      .. "function of a step)"
  elseif message:find("got userdata)", 1, true) then
    return message .. " (a reference stands for a result that does not exist yet)"
  end
  return message
end

local PIPELINE_OPTIONS = { "doc", "input", "timeout", "timeout_ms" }

local function read_options(opts, graph)
  if opts == nil then return end
  if type(opts) ~= "table" then error("the pipeline's options must be a table", 0) end
  local keys = {}
  for key in pairs(opts) do keys[#keys + 1] = tostring(key) end
  table.sort(keys)
  for i = 1, #keys do
    local key, value = keys[i], opts[keys[i]]
    if key == "timeout" then
      graph.timeout_ms = duration(nil, "timeout", value)
    elseif key == "timeout_ms" then
      graph.timeout_ms = whole(1)(nil, "timeout_ms", value)
    elseif key == "input" then
      graph.input = check_data(value, "input", 1, "the pipeline's input")
    elseif key ~= "doc" then
      error(("unknown option '%s' of a pipeline%s"):format(key,
        suggest.question(key, PIPELINE_OPTIONS)), 0)
    end
  end
end

--- A pipeline: runs the builder once, and keeps the graph that it described.
---@param name string
---@param builder fun(p: table, input: any): any  what it returns becomes the output
---@param opts? { timeout?: string, timeout_ms?: number, input?: any, doc?: string }
---@return table pipeline  for `pipeline.graph`, `mpreg run` and `mpreg plan`
function M.new(name, builder, opts)
  if type(name) ~= "string" or not name:find("^[%w_][%w_.-]*$") then
    error("a pipeline needs a name of letters, digits, _ and - first", 2)
  end
  if type(builder) ~= "function" then
    error(("pipeline '%s': the second argument must be the function that builds it")
      :format(name), 2)
  end
  local graph = { name = name }
  checked(2, read_options, opts, graph)
  local p = new_builder()
  local build = builds[p]
  local input = reference { kind = "ref", builder = p, root = "input", path = {} }
  local ok, output = pcall(builder, p, input)
  build.is_done = true
  if not ok then error(amend(output), 0) end
  local open, place = next(build.open)
  if open then
    error(("%s: step '%s' was named but not defined: p \"%s\" { … }"):format(place, open, open), 0)
  end
  graph.steps = list(build.steps)
  graph.output = checked(2, convert, { builder = p, has_item = false }, output, "output", 1)
  return setmetatable({ name = name, doc = opts and opts.doc, _graph = graph }, Pipeline)
end

--- Did `pipeline.new` make it?
---@param x any
---@return boolean
function M.is_pipeline(x)
  return type(x) == "table" and getmetatable(x) == Pipeline
end

--- The graph of a pipeline as plain data, ready to be sent.
---@param pipeline table
---@param input? any  the run's input, instead of the pipeline's own
---@return table graph
function M.graph(pipeline, input)
  if not M.is_pipeline(pipeline) then
    error("pipeline.graph: the first argument must be a pipeline, not a " .. type(pipeline), 2)
  end
  local graph = {}
  for key, value in pairs(pipeline._graph) do graph[key] = value end
  if input ~= nil then graph.input = input end
  return graph
end

return M
