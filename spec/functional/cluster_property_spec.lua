-- Random pipelines over random clusters: each run must come to what a naive evaluator says
-- (spec/support/naive_graph.lua), from whichever node it is coordinated.
--
-- MPREG_SEED=n repeats one; MPREG_GRAPHS=n sets how many graphs each cluster gets.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local naive = require "spec.support.naive_graph"
local node = require "spec.support.node"

local SEED = tonumber(os.getenv "MPREG_SEED") or os.time() % 1000000
local GRAPHS = tonumber(os.getenv "MPREG_GRAPHS") or 40
local AT_ONCE = 8

-- What may become of a run while nodes are killed under it: nobody has what it needs, the node that
-- had begun a step is gone, or the one that held a result.
local TRUTHS = { ["UNAVAILABLE/NODE_LOST"] = true, ["DATA_LOSS/RESULT_LOST"] = true,
  ["NOT_FOUND/UNKNOWN_FUNCTION"] = true }

local function chance(p) return math.random() < p end
local function pick(list) return list[math.random(#list)] end

-- --- functions of fixtures/work.lua, as plain Lua ---

local plain = {}

function plain.add(a, b) return a + b end
function plain.mul(a, b) return a * b % 1000003 end
function plain.is_even(x) return x % 2 == 0 end
function plain.first(x) return x end
function plain.weigh(value, x) return #value.text + x end
function plain.length(text) return #text end

function plain.sum(list)
  local sum = 0
  for i = 1, #list do sum = sum + list[i] end
  return sum
end

function plain.range(count)
  local list = {}
  for i = 1, count do list[i] = i end
  return list
end

function plain.shift(list, by)
  local out = {}
  for i = 1, #list do out[i] = list[i] + by end
  return out
end

function plain.big(bytes)
  return { text = ("x"):rep(bytes), bytes = bytes, inner = { list = { 10, 20, 30 } }, yes = true,
    no = false }
end

-- What they take and give. `number`, `list`, `big` (a map of over 64 KiB), `long` (a list of over
-- 64 KiB), `text` (of a `big`), `flag`.
local SIGNATURES = {
  { "add", "number", "number", gives = "number" }, { "mul", "number", "number", gives = "number" },
  { "sum", "list", gives = "number" }, { "sum", "long", gives = "number" },
  { "range", "count", gives = "list" }, { "range", "long_count", gives = "long" },
  { "shift", "list", "number", gives = "list" }, { "shift", "long", "number", gives = "long" },
  { "is_even", "number", gives = "flag" }, { "first", "flag", gives = "flag" },
  { "first", "list", gives = "list" }, { "first", "big", gives = "big" },
  { "big", "size", gives = "big" }, { "weigh", "big", "number", gives = "number" },
  { "length", "text", gives = "number" },
}

local LITERALS = {
  number = function() return math.random(0, 1000) end,
  count = function() return math.random(0, 12) end,
  long_count = function() return math.random(30000, 40000) end,
  size = function() return chance(0.3) and 1048576 or math.random(70000, 200000) end,
  flag = function() return chance(0.5) end,
  list = function()
    local list = {}
    for i = 1, math.random(0, 5) do list[i] = math.random(100) end
    return list
  end,
}

-- Where a value of one type lies in one of another; the last field: it may be missing.
local PATHS = {
  number = { { "number", "" }, { "list", "[1]", true }, { "list", "[-2]", true },
    { "big", ".bytes" }, { "big", ".inner.list[-1]" }, { "big", '["bytes"]' }, { "long", "[-1]" },
    { "big", ".nothing", true } },
  list = { { "list", "" }, { "big", ".inner.list" } },
  flag = { { "flag", "" }, { "big", ".yes" }, { "big", ".no" } },
  big = { { "big", "" } },
  long = { { "long", "" } },
  text = { { "big", ".text" } },
}

-- --- making graphs ---

--- A reference to a value of that type in one of the steps so far; nil if there is none.
local function reference(steps, kind, depth)
  local found = {}
  for _, s in ipairs(steps) do
    for _, path in ipairs(PATHS[kind] or {}) do
      if s.gives == path[1] then found[#found + 1] = { s.name .. path[2], path[3] } end
    end
  end
  if not found[1] then return nil end
  local place = pick(found)
  local ref = { ["$ref"] = place[1] }
  if place[2] or chance(0.5) then
    local other = depth < 2 and chance(0.5) and reference(steps, kind, depth + 1)
    ref.default = other or LITERALS[kind] and LITERALS[kind]() or nil
  end
  return ref
end

--- An argument of that type; nil if there can be none.
local function argument(steps, kind)
  local ref = chance(LITERALS[kind] and 0.75 or 1) and reference(steps, kind, 0)
  if ref then return ref end
  if LITERALS[kind] then return LITERALS[kind]() end
  return nil
end

--- Turns a step into one call for each element of a list.
local function make_each(s, steps, signature)
  local list = reference(steps, "list", 0) or LITERALS.list()
  for i = #signature, 2, -1 do
    if signature[i] == "number" then
      s.each, s.args[i - 1], s.gives = list, chance(0.8) and { ["$item"] = "" }
        or { ["$index"] = true }, "list"
      if chance(0.4) then s.concurrency = math.random(3) end
      return
    end
  end
end

--- Arguments for a signature; nil if there is nothing yet to take one from.
local function arguments(steps, signature)
  local args = {}
  for i = 2, #signature do
    args[i - 1] = argument(steps, signature[i])
    if args[i - 1] == nil then return nil end
  end
  return args
end

local function step(name, steps, modules)
  local signature, args
  repeat
    signature = pick(SIGNATURES)
    args = arguments(steps, signature)
  until args
  local s = { name = name, fun = signature[1], args = args, after = {}, retries = 0,
    gives = signature.gives }
  if signature.gives == "number" and chance(0.3) then make_each(s, steps, signature) end
  if s.gives == "number" and chance(0.1) then
    s.fun, s.args = "fail", { "oops" }
    s.on_error = chance(0.5) and "skip" or { default = 77 }
  elseif s.each and chance(0.15) then
    s.fun, s.args = "fail", { { ["$item"] = "" } }
    s.on_error = chance(0.5) and "skip" or { default = 77 }
  end
  if chance(0.12) then s.when = reference(steps, "flag", 0) or reference(steps, "number", 0) end
  if chance(0.08) then s.unless = reference(steps, "flag", 0) end
  if steps[1] and chance(0.1) then s.after[1] = pick(steps).name end
  s.call = pick(modules) .. "." .. s.fun
  return s
end

--- A graph, and the script with which the naive evaluator takes it.
local function case(modules)
  local steps, graph, script = {}, { steps = {} }, {}
  for i = 1, math.random(2, 14) do
    local s = step("s" .. i, steps, modules)
    steps[i] = s
    script[s.name] = { queue = 0, network = 0, run = { 1 }, fun = plain[s.fun], code = "UNKNOWN",
      fails = s.fun == "fail" and setmetatable({}, { __index = function() return 1 end }) or nil }
    local def = {}
    for key, value in pairs(s) do def[key] = value end
    def.fun, def.gives = nil, nil
    graph.steps[i] = def
  end
  for i = #steps, 2, -1 do
    local k = math.random(i)
    graph.steps[i], graph.steps[k] = graph.steps[k], graph.steps[i]
  end
  if chance(0.5) then
    graph.output = {}
    for i = 1, math.random(3) do
      local kind = pick { "number", "list", "flag", "number", "big", "text" }
      graph.output["o" .. i] = reference(steps, kind, 0)
    end
    if not next(graph.output) then graph.output = nil end
  end
  return graph, script
end

-- --- comparing ---

--- Nil if both are the same, else where they differ. Null is as good as nothing.
local function difference(a, b, path)
  if a == codec.null then a = nil end
  if b == codec.null then b = nil end
  if type(a) ~= "table" or type(b) ~= "table" then
    if a == b then return nil end
    return ("%s: %s, not %s"):format(path, tostring(a):sub(1, 60), tostring(b):sub(1, 60))
  end
  for key, value in pairs(a) do
    local found = difference(value, b[key], path .. "." .. tostring(key))
    if found then return found end
  end
  for key, value in pairs(b) do
    if a[key] == nil and value ~= codec.null then
      return ("%s.%s: nothing, not %s"):format(path, tostring(key), tostring(value):sub(1, 60))
    end
  end
  return nil
end

local function compare(run, expected, owners)
  if run.status ~= expected.status then
    return ("%s (%s), not %s"):format(run.status, (codec.json_encode(run.error)), expected.status)
  end
  local by = {}
  for _, s in ipairs(expected.steps) do by[s.name] = s end
  for _, s in ipairs(run.steps) do
    local e = by[s.name]
    if s.status ~= e.status or s.level ~= e.level then
      return ("%s is %s on level %d, not %s on %d"):format(s.name, s.status, s.level, e.status,
        e.level)
    end
    local module = s.call:match "^(.*)%."
    if s.node ~= codec.null and not owners[module][s.node] then
      return ("%s ran on %s, which does not have it"):format(s.name, s.node)
    end
    if e.items then
      local found = difference(s.items, e.items, s.name .. ".items")
      if found then return found end
    end
  end
  return difference(run.output, expected.output, "output")
end

-- --- clusters ---

--- Functions spread at random: for each module, on which nodes it is.
local function spread(count)
  local defs, modules, owners = {}, {}, {}
  for i = 1, count do defs[i] = { modules = {} } end
  for k = 1, count + 1 do
    local name = "m" .. k
    modules[k], owners[name] = name, {}
    for _ = 1, math.random(2) do
      local i = math.random(count)
      if not owners[name]["n" .. i] then
        owners[name]["n" .. i] = true
        table.insert(defs[i].modules, name)
      end
    end
  end
  return defs, modules, owners
end

describe("random pipelines", function()
  local c
  after_each(function()
    if c then c:close() end
    c = nil
    node.stop_all()
  end)

  it("while nodes are killed and come back, come to that or fail with the truth", function()
    math.randomseed(SEED * 8)
    local count = math.random(3, 6)
    local defs, modules, owners = spread(count)
    print(("# mesh of %d nodes that die, MPREG_SEED=%d"):format(count, SEED))
    c = cluster.start("mesh", defs)
    local succeeded, failed = 0, 0
    for round = 1, math.max(1, math.floor(GRAPHS / 10)) do
      local open = {}
      for number = 1, 10 do
        local graph, script = case(modules)
        open[number] = { graph = graph, expected = naive(graph, script, nil, 1),
          request = c:client(1):run(graph) }
      end
      local victim = math.random(2, count)
      -- At some moment of these runs: after that many of them.
      local done = math.random(0, 5)
      node.eventually(function()
        local now = 0
        for _, entry in ipairs(open) do now = now + (entry.request.done and 1 or 0) end
        return now >= done
      end, "some answers", 60)
      c:kill(victim)
      for _, entry in ipairs(open) do
        c:client(1):wait(entry.request, 120)
        local run = entry.request.result
        local err = entry.request.error or run.status ~= "succeeded" and run.error or nil
        local fault = not err and compare(run, entry.expected, owners) or nil
        if err and not TRUTHS[err.code .. "/" .. err.reason] then
          fault = codec.json_encode(err)
        end
        if fault then
          error(("MPREG_SEED=%d, round %d, n%d killed: %s\n%s"):format(SEED, round, victim, fault,
            (codec.json_encode(entry.graph))), 0)
        end
        if err then failed = failed + 1 else succeeded = succeeded + 1 end
      end
      c:await_nothing_held()
      c:restart(victim, { 1 })
      c:settle()
    end
    print(("# %d succeeded, %d failed"):format(succeeded, failed))
    c:await_idle()
  end)

  for place, shape in ipairs { "tree", "line", "star", "mesh", "ring" } do
    it(("over a %s come to what they must"):format(shape), function()
      math.randomseed(SEED * 8 + place)
      local count = math.random(2, 7)
      local defs, modules, owners = spread(count)
      print(("# %s of %d nodes, MPREG_SEED=%d"):format(shape, count, SEED))
      c = cluster.start(shape, defs)
      local open = {}
      local moved, steps = 0, 0
      local function finish(entry)
        local request = c:client(entry.i):wait(entry.request, 120)
        local fault = request.error and request.code .. ": " .. request.error.message
          or compare(request.result, entry.expected, owners)
        if fault then
          error(("MPREG_SEED=%d, %s, graph %d, coordinated by n%d: %s\n%s"):format(SEED, shape,
            entry.number, entry.i, fault, (codec.json_encode(entry.graph))), 0)
        end
        moved = moved + request.result.summary.bytes_moved
        steps = steps + #entry.graph.steps
      end
      for number = 1, GRAPHS do
        local graph, script = case(modules)
        local i = math.random(count)
        local expected = naive(graph, script, nil, 1)
        open[#open + 1] = { i = i, number = number, graph = graph, expected = expected,
          request = c:client(i):run(graph) }
        if #open == AT_ONCE then finish(table.remove(open, 1)) end
      end
      for _, entry in ipairs(open) do finish(entry) end
      print(("# %d graphs of %d steps, %.1f MiB moved"):format(GRAPHS, steps, moved / 1048576))
      c:await_nothing_held()
      c:await_idle()
    end)
  end
end)
