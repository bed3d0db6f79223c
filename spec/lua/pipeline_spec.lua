local pipeline = require "mpreg.pipeline"

describe("pipeline", function()
  local function graph(builder, opts) return pipeline.graph(pipeline.new("test", builder, opts)) end

  --- The only step's arguments.
  local function arguments(make)
    return graph(function(p, input)
      p "events" { "m.load" }
      p "step" { "m.f", make(p, input, nil) }
    end).steps[2].args
  end

  local function refusal(builder, opts)
    local ok, message = pcall(pipeline.new, "test", builder, opts)
    assert.is_false(ok)
    return message
  end

  local function assert_refused(pattern, builder, opts)
    local message = refusal(builder, opts)
    assert.is_truthy(tostring(message):find(pattern, 1, true),
      ("expected '%s' in: %s"):format(pattern, tostring(message)))
  end

  it("compiles to the graph that one would write in JSON", function()
    local quakes = pipeline.new("quakes", function(p, input)
      local events = p "events" { "quakes.load", input.file, needs = { "catalogue" } }
      local strong = p "strong" { "quakes.filter", events.features, input.min }
      local by_net = p "by_net" {
        "quakes.summary", p.item.name, strong.rows, each = strong.networks,
      }
      return { report = p "report" { "quakes.report", by_net }.text }
    end)
    assert.are.same({
      name = "quakes",
      steps = {
        { name = "events", call = "quakes.load", args = { { ["$ref"] = "input.file" } },
          needs = { "catalogue" } },
        { name = "strong", call = "quakes.filter",
          args = { { ["$ref"] = "events.features" }, { ["$ref"] = "input.min" } } },
        { name = "by_net", call = "quakes.summary", each = { ["$ref"] = "strong.networks" },
          args = { { ["$item"] = "name" }, { ["$ref"] = "strong.rows" } } },
        { name = "report", call = "quakes.report", args = { { ["$ref"] = "by_net" } } },
      },
      output = { report = { ["$ref"] = "report.text" } },
    }, pipeline.graph(quakes))
  end)

  it("tells pipelines from everything else", function()
    assert.is_true(pipeline.is_pipeline(pipeline.new("a", function() end)))
    for _, x in ipairs { {}, "a", 1, print, { name = "a", steps = {} } } do
      assert.is_false(pipeline.is_pipeline(x))
    end
    assert.is_false(pipeline.is_pipeline(nil))
    assert.has_error(function() pipeline.graph {} end)
  end)

  it("leaves the output out when the builder returns nothing", function()
    assert.is_nil(graph(function(p) p "a" { "m.f" } end).output)
  end)

  it("takes a reference, a text or a list as output", function()
    assert.are.same({ ["$ref"] = "a.x" }, graph(function(p) return p "a" { "m.f" }.x end).output)
    assert.are.equal("done", graph(function(p) p "a" { "m.f" } return "done" end).output)
    assert.are.same({ { ["$ref"] = "a" }, 1 },
      graph(function(p) return { p "a" { "m.f" }, 1 } end).output)
  end)

  it("takes the run's input, its own or the one given later", function()
    local x = pipeline.new("a", function(p, input) p "s" { "m.f", input } end,
      { input = { min = 1 } })
    assert.are.same({ min = 1 }, pipeline.graph(x).input)
    assert.are.same({ min = 2 }, pipeline.graph(x, { min = 2 }).input)
    assert.are.same({ min = 1 }, pipeline.graph(x).input)
    assert.are.same({ { ["$ref"] = "input" } }, pipeline.graph(x).steps[1].args)
  end)

  it("takes a timeout for the whole run", function()
    assert.are.equal(30000, graph(function() end, { timeout = "30s" }).timeout_ms)
    assert.are.equal(5, graph(function() end, { timeout_ms = 5 }).timeout_ms)
    assert_refused("unknown option 'timeot' of a pipeline, did you mean 'timeout'?",
      function() end, { timeot = "1s" })
  end)

  it("writes every kind of path", function()
    local args = arguments(function(_, input)
      return input.a.b, input[1], input.rows[-1].x, input["any key"], input['q"\\'].z,
        input.a["b-c"], input[""]
    end)
    local paths = {}
    for i, arg in ipairs(args) do paths[i] = arg["$ref"] end
    assert.are.same({ "input.a.b", "input[1]", "input.rows[-1].x", 'input["any key"]',
      'input["q\\"\\\\"].z', "input.a.b-c", 'input[""]' }, paths)
  end)

  it("refuses places that no list has", function()
    for _, place in ipairs { 0, 1.5, 2 ^ 40 } do
      assert_refused("a place in a list", function(_, input) return input[place] end)
    end
    assert_refused("cannot be indexed with a boolean", function(_, input) return input[true] end)
    assert_refused("cannot be indexed with a reference", function(_, input) return input[input] end)
  end)

  it("keeps data as it is", function()
    local args = arguments(function()
      return "events", 1.5, true, { 1, { x = "input" } }, { a = false }, {}
    end)
    assert.are.same({ "events", 1.5, true, { 1, { x = "input" } }, { a = false }, {} }, args)
  end)

  it("finds references at any depth of an argument", function()
    local args = arguments(function(_, input) return { rows = { { input.a }, { b = input } } } end)
    assert.are.same({ { rows = { { { ["$ref"] = "input.a" } }, { b = { ["$ref"] = "input" } } } } },
      args)
  end)

  it("takes tables with $ keys as data", function()
    local args = arguments(function()
      return { ["$ref"] = "events.x" }, { deep = { ["$lit"] = 1, other = 2 } }
    end)
    assert.are.same({ { ["$lit"] = { ["$ref"] = "events.x" } },
      { deep = { ["$lit"] = { ["$lit"] = 1, other = 2 } } } }, args)
    assert_refused("input.a cannot stand inside a table with the key '$x'", function(p, input)
      p "s" { "m.f", { ["$x"] = { input.a } } }
    end)
  end)

  it("has literals", function()
    local args = arguments(function(p) return p.lit { a = { 1 } }, p.lit "x" end)
    assert.are.same({ { ["$lit"] = { a = { 1 } } }, { ["$lit"] = "x" } }, args)
    assert_refused("input cannot stand inside p.lit(…)", function(p, input) p.lit { input } end)
  end)

  it("has defaults, which may be references", function()
    local args = arguments(function(p, input)
      return p.default(input.a, 5), p.default(input.b, { p.default(input.c, input.d) })
    end)
    assert.are.same({
      { ["$ref"] = "input.a", default = 5 },
      { ["$ref"] = "input.b",
        default = { { ["$ref"] = "input.c", default = { ["$ref"] = "input.d" } } } },
    }, args)
    assert_refused("the first argument must be a reference", function(p) p.default(1, 2) end)
    assert_refused("has no fields", function(p, input) return p.default(input, 1).x end)
  end)

  it("knows the item and its place in steps with each", function()
    local steps = graph(function(p, input)
      p "s" { "m.f", p.item, p.item.a.b, p.item["any key"], p.item[2], { at = p.index },
        each = input.rows, concurrency = 3 }
    end).steps
    assert.are.same({ { ["$item"] = "" }, { ["$item"] = "a.b" }, { ["$item"] = '["any key"]' },
      { ["$item"] = "[2]" }, { at = { ["$index"] = true } } }, steps[1].args)
    assert.are.equal(3, steps[1].concurrency)
    assert_refused("p.item.a is known only in the arguments of a step with each=",
      function(p) p "s" { "m.f", p.item.a } end)
    assert_refused("p.index is known only", function(p) return { p.index } end)
    assert_refused("p.item is known only", function(p, input)
      p "s" { "m.f", each = input, when = p.default(input.x, p.item) }
    end)
  end)

  it("takes each from a reference, a default or a literal list", function()
    local function each_of(make)
      return graph(function(p, input) p "s" { "m.f", each = make(p, input) } end).steps[1].each
    end
    assert.are.same({ ["$ref"] = "input" }, each_of(function(_, input) return input end))
    assert.are.same({ 1, 2 }, each_of(function() return { 1, 2 } end))
    assert.are.same({ { ["$ref"] = "input.a" } },
      each_of(function(_, input) return { input.a } end))
    assert.are.same({ ["$ref"] = "input", default = {} },
      each_of(function(p, input) return p.default(input, {}) end))
    assert.is_truthy(getmetatable(each_of(function() return {} end)))
    assert_refused("each: must be a list", function(p) p "s" { "m.f", each = { a = 1 } } end)
    assert_refused("each: must be a reference or a list, not a string",
      function(p) p "s" { "m.f", each = "events" } end)
  end)

  it("passes every option on under its name", function()
    local step = graph(function(p, input)
      local a = p "a" { "m.f" }
      p "b" { "m.g", needs = "gpu", when = input.go, unless = a.stop, after = { a, "a" },
        retries = 2, backoff_ms = 10, timeout = "1.5s", on_error = "skip",
        version = "^1.2", on = "n1",
        cluster = "eu" }
    end).steps[2]
    assert.are.same({ name = "b", call = "m.g", args = {}, needs = { "gpu" },
      when = { ["$ref"] = "input.go" }, unless = { ["$ref"] = "a.stop" }, after = { "a", "a" },
      retries = 2, backoff_ms = 10, timeout_ms = 1500, on_error = "skip", version = "^1.2",
      on = "n1", cluster = "eu" }, step)
  end)

  it("takes a reference or a name for after", function()
    for _, make in ipairs { function(a) return a end, function(a) return a.deeper end,
      function() return "a" end } do
      local step = graph(function(p) p "b" { "m.f", after = make(p "a" { "m.f" }) } end).steps[2]
      assert.are.same({ "a" }, step.after)
    end
    assert_refused("input is no step", function(p, input) p "s" { "m.f", after = input } end)
  end)

  it("takes the three forms of on_error", function()
    local function of(value)
      return graph(function(p) p "s" { "m.f", on_error = value } end).steps[1].on_error
    end
    assert.are.equal("fail", of "fail")
    assert.are.equal("skip", of "skip")
    assert.are.same({ default = { 0 } }, of { default = { 0 } })
    assert.are.same({ default = false }, of { default = false })
    for _, bad in ipairs { "ignore", { defualt = 1 }, {}, { default = 1, more = 2 }, 5 } do
      assert_refused('must be "fail", "skip" or', function(p) p "s" { "m.f", on_error = bad } end)
    end
    assert_refused("input cannot stand inside a default of on_error",
      function(p, input) p "s" { "m.f", on_error = { default = input } } end)
  end)

  it("checks the types of options", function()
    local function bad(options, pattern)
      options[1] = "m.f"
      assert_refused(pattern, function(p) p "s" (options) end)
    end
    bad({ retries = -1 }, "retries: must be a whole number from 0, not -1")
    bad({ retries = "2" }, "retries: must be a whole number from 0, not a string")
    bad({ timeout_ms = 0 }, "timeout_ms: must be a whole number from 1")
    bad({ timeout = 5 }, 'timeout: must be a duration such as "5s", not a number')
    bad({ timeout = "5 parsecs" }, "is no duration")
    bad({ timeout = "5s", timeout_ms = 1 }, "both timeout and timeout_ms")
    bad({ needs = { 1 } }, "needs[1]: must be a name, not a number")
    bad({ needs = { gpu = true } }, "needs: must be a list of names")
    bad({ when = true }, "when: must be a reference, not a boolean")
    bad({ version = 1 }, "version: must be a text, not a number")
    bad({ concurrency = 0 }, "concurrency: must be a whole number from 1, not 0")
    bad({ retires = 1 }, "unknown option 'retires', did you mean 'retries'?")
    bad({ [0] = 1 }, "unknown option [0]")
    bad({ [true] = 1 }, "unknown option [true]")
  end)

  it("says where in the pipeline's file it is wrong", function()
    local message = refusal(function(p) p "s" { "m.f", retrys = 1 } end)
    assert.is_truthy(message:find("pipeline_spec.lua:%d+: step 's': unknown option"), message)
  end)

  it("refuses a hole among the arguments", function()
    assert_refused("argument 2 is nil, and others follow; write mpreg.null",
      function(p, input) p "s" { "m.f", input, nil, input } end)
  end)

  it("refuses what cannot be sent, with its place", function()
    assert_refused("argument 1.items[2].callback: a function cannot be sent",
      function(p) p "s" { "m.f", { items = { {}, { callback = print } } } } end)
    assert_refused("argument 1: the list has a hole at 2",
      function(p) p "s" { "m.f", { 1, nil, 3 } } end)
    assert_refused("a list or has names, not both", function(p) p "s" { "m.f", { 1, a = 2 } } end)
    assert_refused("p itself cannot be sent", function(p) p "s" { "m.f", p } end)
    assert_refused("a pipeline cannot be an argument",
      function(p) p "s" { "m.f", pipeline.new("x", function() end) } end)
    local cycle = {}
    cycle.self = cycle
    assert_refused("nested deeper than 128, or a cycle", function(p) p "s" { "m.f", cycle } end)
    assert_refused("nested deeper than 128, or a cycle", function(p) p.lit(cycle) end)
  end)

  it("refuses to use a reference as a value", function()
    local uses = {
      ["calculated with"] = { function(r) return r + 1 end, function(r) return 1 - r end,
        function(r) return r * r end, function(r) return -r end, function(r) return r % 2 end,
        function(r) return r / 2 end, function(r) return 2 ^ r end },
      ["joined to a text"] = { function(r) return r .. "x" end, function(r) return "x" .. r end },
      ["counted"] = { function(r) return #r end },
      ["called"] = { function(r) return r() end, function(r) return r.x("y") end },
      ["turned into text"] = { function(r) return tostring(r) end },
      ["compare"] = { function(r) return r < 1 end, function(r) return r.a <= r.b end,
        function(r) return r.a == r.b end },
      ["cannot be set"] = { function(r) r.x = 1 end },
      ["does not exist yet"] = { function(r) return ipairs(r) end,
        function(r) return table.concat(r) end },
    }
    for text, functions in pairs(uses) do
      for _, use in ipairs(functions) do
        assert_refused(text, function(p) use(p "s" { "m.f" }) end)
        assert_refused(text, function(_, input) use(input.rows) end)
      end
    end
  end)

  it("refuses another pipeline's references", function()
    local stolen
    pipeline.new("one", function(p) stolen = p "a" { "m.f" } end)
    assert_refused("a.x belongs to another pipeline", function(p) p "s" { "m.f", stolen.x } end)
    assert_refused("a belongs to another pipeline", function(p) p "s" { "m.f", after = stolen } end)
    assert_refused("a belongs to another pipeline", function() return { stolen } end)
  end)

  it("refuses steps that are named but not defined, and steps after the end", function()
    assert_refused("step 'a' was named but not defined", function(p) local _ = p "a" end)
    local late
    pipeline.new("one", function(p) late = p end)
    assert.has_error(function() late "a" { "m.f" } end)
  end)

  it("refuses bad names of steps and functions", function()
    assert_refused("'input' is no step name", function(p) p "input" { "m.f" } end)
    assert_refused("'a b' is no step name", function(p) p "a b" { "m.f" } end)
    assert_refused("must be a text, not a number", function(p) p(1) { "m.f" } end)
    assert_refused("first element must be the function's name", function(p) p "a" { print } end)
    assert_refused("must be a table", function(p) p "a" "m.f" end)
    assert_refused("p.itme is unknown, did you mean 'item'?", function(p) return p.itme end)
    assert.has_error(function() pipeline.new("", function() end) end)
    assert.has_error(function() pipeline.new("a", nil) end)
  end)

  it("leaves duplicate and unknown steps to the check of the whole graph", function()
    local steps = graph(function(p)
      p "a" { "m.f" }
      p "a" { "m.g", after = "nowhere" }
    end).steps
    assert.are.equal(2, #steps)
    assert.are.same({ "nowhere" }, steps[2].after)
  end)

  it("keeps the order of definition in large graphs", function()
    local steps = graph(function(p)
      local last
      for i = 1, 5000 do last = p("s" .. i) { "m.f", last } end
    end).steps
    assert.are.equal(5000, #steps)
    for i = 2, 5000 do assert.are.equal("s" .. (i - 1), steps[i].args[1]["$ref"]) end
  end)
end)
