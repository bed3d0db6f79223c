-- The pipeline as the library compiles it: checked as data, then walked in this process, each step
-- with the module's own functions.

local cjson = require "cjson"
local compile = require "mpreg.pipeline"

describe("examples/quakes/pipeline", function()
  local real, quakes, graph, by_name

  setup(function()
    real = package.loaded["mpreg"]
    package.loaded["mpreg"] = {
      null = cjson.null,
      array = function(t) return t end,
      resource = function() return { path = "examples/quakes/data" } end,
      pipeline = compile.new,
    }
    quakes = dofile("examples/quakes/quakes.lua")
    graph = compile.graph(dofile("examples/quakes/pipeline.lua"))
    by_name = {}
    for _, step in ipairs(graph.steps) do by_name[step.name] = step end
  end)

  teardown(function() package.loaded["mpreg"] = real end)

  -- Calls `visit` for each reference inside a value.
  local function each_reference(value, visit)
    if type(value) ~= "table" then return end
    if value["$ref"] then visit(value["$ref"]) end
    for _, inner in pairs(value) do each_reference(inner, visit) end
  end

  local function level_of(name)
    local level = 0
    each_reference({ by_name[name].args, by_name[name].each }, function(path)
      local source = path:match("^[%w_-]+")
      if source ~= "input" then level = math.max(level, level_of(source) + 1) end
    end)
    return level
  end

  local function at_path(value, path)
    for key in path:gmatch("[^.]+") do value = type(value) == "table" and value[key] or nil end
    return value
  end

  local function resolve(value, values, item)
    if type(value) ~= "table" then return value end
    if value["$item"] then return at_path(item, value["$item"]) end
    if value["$ref"] then
      local found = at_path(values, value["$ref"])
      if found == nil then
        assert.is_not_nil(value.default, value["$ref"] .. " is not there")
        return value.default
      end
      return found
    end
    local copy = {}
    for key, inner in pairs(value) do copy[key] = resolve(inner, values, item) end
    return copy
  end

  local function run(input)
    local values = { input = input }
    for _, step in ipairs(graph.steps) do
      local fun = quakes[step.call:match("^quakes%.(.+)$")]
      if step.each then
        local list = {}
        for i, item in ipairs(resolve(step.each, values)) do
          list[i] = fun(unpack(resolve(step.args, values, item)))
        end
        values[step.name] = list
      else
        values[step.name] = fun(unpack(resolve(step.args, values)))
      end
    end
    return resolve(graph.output, values)
  end

  it("calls functions that the module has", function()
    assert.are.equal("quakes", graph.name)
    for _, step in ipairs(graph.steps) do
      local name = step.call:match("^quakes%.(.+)$")
      assert.are.equal("function", type(quakes[name]), step.call)
      assert.is_not_nil(quakes._mpreg[name], step.call)
    end
    assert.are.same({ "catalogue" }, by_name.events.needs)
  end)

  it("has five levels, and the networks and clusters side by side", function()
    local levels = {}
    for _, step in ipairs(graph.steps) do levels[step.name] = level_of(step.name) end
    assert.are.same({ events = 0, sorted = 1, largest = 1, networks = 2, groups = 2, by_network = 3,
      clusters = 3, report = 4 }, levels)
    assert.are.same({ ["$ref"] = "sorted.networks" }, by_name.networks.each)
    assert.are.same({ ["$ref"] = "groups" }, by_name.clusters.each)
  end)

  it("gives exactly the promised output, also without an input", function()
    local out = run(nil)
    local keys = {}
    for key in pairs(out) do keys[#keys + 1] = key end
    table.sort(keys)
    assert.are.same({ "by_network", "clusters", "earthquakes", "explosions", "largest", "other",
      "quarry_blasts", "report", "total" }, keys)
    local counts = { out.total, out.earthquakes, out.explosions, out.quarry_blasts, out.other }
    assert.are.same({ 1707, 1679, 15, 13, 0 }, counts)
    assert.are.equal(10, #out.largest)
    assert.are.equal(34, #out.clusters)
    assert.are.equal(1.1, out.by_network.ci.completeness)
    assert.is_truthy(out.report:find("15 explosions, 13 quarry blasts", 1, true))
    assert.is_truthy(out.report:find("34 clusters", 1, true))
  end)

  it("takes another file and another window", function()
    local out = run { window = { km = 5, min_events = 10 } }
    assert.is_true(#out.clusters < 34)
    for _, cluster in ipairs(out.clusters) do assert.is_true(cluster.count >= 10) end
    assert.is_truthy(out.report:find("at most 5 km", 1, true))
    local ok, err = pcall(run, { file = "none.json" })
    assert.is_false(ok)
    assert.are.equal("NOT_FOUND", err.code)
  end)
end)
