-- Runs over many nodes: each final value, where the steps ran and what moved between them.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"

local MIB = 1024 * 1024

local function ref(path, default) return { ["$ref"] = path, default = default } end

local function step(name, call, args, more)
  local s = { name = name, call = call, args = codec.array(args or {}) }
  for key, value in pairs(more or {}) do s[key] = value end
  return s
end

local function succeeded(run)
  if run.status ~= "succeeded" then
    error(("the run %s: %s"):format(run.status, assert(codec.json_encode(run.error))), 2)
  end
end

--- Keeps the steps' records by name and asserts that all went well.
local function records(run)
  succeeded(run)
  local map = {}
  for _, s in ipairs(run.steps) do
    assert.are.equal("succeeded", s.status, s.name)
    map[s.name] = s
  end
  return map
end

--- A place ("node level" of each step) as one text, by the order of the graph.
local function places(run)
  local list = {}
  for i, s in ipairs(run.steps) do list[i] = ("%s:%s:%d"):format(s.name, s.node, s.level) end
  return table.concat(list, " ")
end

local function moved_once(run, bytes)
  local moved = run.summary.bytes_moved
  assert.is_true(moved >= bytes and moved <= 1.01 * bytes + 4096,
    ("%d bytes moved, of a value of %d"):format(moved, bytes))
end

describe("a graph over", function()
  local c
  setup(function()
    local defs = {}
    for i = 1, 5 do defs[i] = { modules = { "m" .. i } } end
    c = cluster.start("mesh", defs)
  end)
  teardown(function()
    c:close()
    node.stop_all()
  end)

  local function check(graph, expected)
    for i = 1, 5 do
      local run = c:run(i, graph, { trace = true })
      records(run)
      assert.are.same(expected.output, run.output)
      assert.are.equal(expected.places, places(run))
      assert.are.same(expected.nodes, { unpack(run.summary.nodes) })
      local remote = 0
      for _, s in ipairs(run.steps) do
        assert.are.equal("1.0.0", s.version)
        assert.are.equal(1, s.attempts)
        if s.node ~= "n" .. i then remote = remote + 1 end
      end
      assert.are.equal(remote, run.summary.remote_calls)
      assert.are.equal(expected.levels, run.summary.levels)
      assert.are.equal(expected.levels, #run.levels)
      for k, level in ipairs(run.levels) do
        assert.are.same({ k - 1, expected.levels }, { level.level, level.total_levels })
      end
      assert.are.equal(#run.steps, run.levels[expected.levels].available_count)
      assert.are.equal(100, run.levels[expected.levels].progress)
    end
    c:await_nothing_held()
  end

  it("two nodes: a chain of four steps", function()
    check({ steps = {
      step("one", "m1.range", { 5 }),
      step("two", "m2.shift", { ref "one", 10 }),
      step("three", "m1.shift", { ref "two", 100 }),
      step("four", "m2.sum", { ref "three" }),
    } }, { output = { four = 565 }, levels = 4, nodes = { "n1", "n2" },
      places = "one:n1:0 two:n2:1 three:n1:2 four:n2:3" })
  end)

  it("three nodes: six steps", function()
    check({ input = { count = 4, by = 7 }, steps = {
      step("list", "m1.range", { ref "input.count" }),
      step("moved", "m2.shift", { ref "list", ref "input.by" }),
      step("sum", "m3.sum", { ref "moved" }),
      step("product", "m1.mul", { ref "moved[1]", ref "moved[-1]" }),
      step("both", "m2.add", { ref "sum", ref "product" }),
      step("row", "m3.row", { ref "both", ref "list" }),
    }, output = { n = ref "row.n", last = ref "row.list[-1]", at = ref "row.at" } },
      { output = { n = 126, last = 4, at = "n3" }, levels = 5, nodes = { "n1", "n2", "n3" },
        places = "list:n1:0 moved:n2:1 sum:n3:2 product:n1:2 both:n2:3 row:n3:4" })
  end)

  it("four nodes: a star with a join", function()
    check({ steps = {
      step("hub", "m1.range", { 3 }),
      step("left", "m2.shift", { ref "hub", 10 }),
      step("mid", "m3.shift", { ref "hub", 20 }),
      step("right", "m4.shift", { ref "hub", 30 }),
      step("join", "m1.row", { ref "left[1]", { ref "mid[2]", { deep = ref "right[3]" } } }),
    } }, { output = { join = { n = 11, list = { 22, { deep = 33 } }, at = "n1" } }, levels = 3,
      nodes = { "n1", "n2", "n3", "n4" },
      places = "hub:n1:0 left:n2:1 mid:n3:1 right:n4:1 join:n1:2" })
  end)

  it("five nodes: a mesh with two parallel branches", function()
    check({ steps = {
      step("start", "m1.range", { 10 }),
      step("l1", "m2.shift", { ref "start", 1 }),
      step("l2", "m3.sum", { ref "l1" }),
      step("r1", "m4.row", { 5, ref "start" }),
      step("r2", "m5.sum", { ref "r1.list" }),
      step("end", "m1.add", { ref "l2", ref "r2" }),
    }, output = { sum = ref "end", from = ref "r1.at" } },
      { output = { sum = 120, from = "n4" }, levels = 4,
        nodes = { "n1", "n2", "n3", "n4", "n5" },
        places = "start:n1:0 l1:n2:1 l2:n3:2 r1:n4:1 r2:n5:2 end:n1:3" })
  end)

  it("five nodes: each, when, unless, defaults and forgiven errors", function()
    local graph = { steps = {
      step("list", "m1.range", { 30 }),
      step("doubled", "m2.add", { { ["$item"] = "" }, { ["$index"] = true } },
        { each = ref "list" }),
      step("even", "m3.is_even", { ref "doubled[-1]" }),
      step("yes", "m4.sum", { ref "doubled" }, { when = ref "even" }),
      step("no", "m5.sum", { ref "doubled" }, { unless = ref "even" }),
      step("joined", "m5.first", { ref("no", ref "yes") }),
      step("broken", "m4.fail", { "oops" }, { on_error = { default = { 7 } } }),
      step("left_out", "m3.fail", { { ["$item"] = "" } }, { each = { 1, 2 }, on_error = "skip" }),
    }, output = { joined = ref "joined", broken = ref "broken[1]", left_out = ref "left_out",
      no = ref "no" } }
    for i = 1, 5 do
      local run = c:run(i, graph)
      assert.are.equal("succeeded", run.status)
      assert.are.equal(930, run.output.joined)
      assert.are.equal(7, run.output.broken)
      assert.are.equal(0, #run.output.left_out)
      assert.are.equal(codec.null, run.output.no)
      local by = {}
      for _, s in ipairs(run.steps) do by[s.name] = s end
      assert.are.same({ "skipped", "unless" }, { by.no.status, by.no.because })
      assert.are.same({ 30, 30 }, { by.doubled.items.total, by.doubled.items.succeeded })
      assert.are.same({ "n2" }, { unpack(by.doubled.nodes) })
      assert.are.equal("n4", by.broken.error.node)
      assert.is_true(by.broken.defaulted)
      assert.are.equal(2, by.left_out.items.skipped)
    end
  end)

  it("five nodes: an error is the run's, with its step and remote traceback", function()
    local graph = { steps = {
      step("fine", "m2.range", { 3 }),
      step("bad", "m3.nest", { "m4.nest", "m5.fail", "oops" }, { after = { "fine" } }),
      step("behind", "m1.sum", { ref "bad" }),
    } }
    local path = c:path() .. ".json"
    local file = assert(io.open(path, "w"))
    file:write((assert(codec.json_encode(graph))))
    file:close()
    for i = 1, 5 do
      local r = c[i]:mpreg { "run", path, "-o", "json" }
      assert.are.equal(1, r.code, r.err)
      local run = codec.json_decode(r.out)
      assert.are.equal("failed", run.status)
      assert.are.same({ "bad", "UNKNOWN", "oops", "n5" },
        { run.error.step, run.error.code, run.error.message, run.error.node })
      local nodes = {}
      for k, frame in ipairs(run.error.traceback) do nodes[k] = frame.node end
      assert.are.same({ "n5", "n4", "n3" }, nodes)
      assert.are.same({ "succeeded", "failed", "skipped" },
        { run.steps[1].status, run.steps[2].status, run.steps[3].status })
      assert.are.same({ 1, 2, 3 }, { unpack(run.results.fine) })
    end
  end)

  it("five nodes: is refused as a whole if one step cannot be served", function()
    local graph = { steps = {
      step("marks", "m2.hold", { c:path() }),
      step("bad", "m3.nothing"),
      step("worse", "m4.where", {}, { needs = { "moon" } }),
    } }
    for i = 1, 5 do
      local request = c:client(i):wait(c:client(i):run(graph))
      assert.are.equal("NOT_FOUND/UNKNOWN_FUNCTION", request.code)
      assert.are.equal(2, #request.error.faults)
      assert.are.equal("UNSATISFIABLE", request.error.faults[2].reason)
    end
  end)

  it("five nodes: many at once from all of them come to the same", function()
    local steps = { step("s1", "m1.add", { ref "input", 1 }) }
    for i = 2, 20 do
      steps[i] = step("s" .. i, ("m%d.add"):format(i % 5 + 1), { ref("s" .. i - 1), 1 })
    end
    local requests = {}
    for k = 1, 40 do
      local i = k % 5 + 1
      requests[k] = c:client(i):run { input = k, steps = steps }
    end
    for k = 1, 40 do
      local run = c:client(k % 5 + 1):result(requests[k])
      assert.are.equal(k + 20, run.output.s20)
    end
  end)
end)

describe("a large value", function()
  local c
  setup(function()
    c = cluster.start("line", { { modules = { "a" } }, { modules = { "b" } },
      { modules = { "c" } } })
  end)
  teardown(function()
    c:close()
    node.stop_all()
  end)

  for _, mib in ipairs { 1, 8 } do
    local bytes = mib * MIB
    local title = ("of %d MiB "):format(mib)

    it(title .. "moves once, from where it was made to where it is used", function()
      local graph = { steps = { step("big", "b.big", { bytes }),
        step("length", "c.length", { ref "big" }) } }
      local run = c:run(1, graph)
      local by = records(run)
      assert.are.equal(bytes, run.output.length)
      assert.are.same({ "n2", "n3" }, { by.big.node, by.length.node })
      assert.is_true(by.big.bytes_out > bytes)
      moved_once(run, bytes)
      c:await_nothing_held()
    end)

    it(title .. "does not move when it is used where it was made", function()
      local run = c:run(1, { steps = { step("big", "b.big", { bytes }),
        step("length", "b.length", { ref "big" }), step("part", "b.length", { ref "big.text" }) } })
      assert.are.same({ length = bytes, part = bytes }, run.output)
      assert.is_true(run.summary.bytes_moved < 4096, run.summary.bytes_moved)
      c:await_nothing_held()
    end)

    it(title .. "comes whole with the output that needs it", function()
      local run = c:run(1, { steps = { step("big", "b.big", { bytes }) },
        output = { text = ref "big.text", n = ref "big.inner.list[2]" } })
      assert.are.equal(bytes, #run.output.text)
      assert.are.equal(20, run.output.n)
      moved_once(run, bytes)
      c:await_nothing_held()
    end)
  end

  it("made where the run is coordinated moves once to where it is used", function()
    local run = c:run(2, { steps = { step("big", "b.big", { MIB }),
      step("length", "c.length", { ref "big" }), step("again", "c.length", { ref "big.text" }) } })
    assert.are.same({ length = MIB, again = MIB }, run.output)
    -- Two steps may be on their way at once, and a part is a value of its own.
    assert.is_true(run.summary.bytes_moved <= 2.02 * MIB, run.summary.bytes_moved)
    c:await_nothing_held()
  end)

  it("moves once for two hundred steps that use it", function()
    local steps = { step("big", "b.big", { MIB }) }
    for i = 2, 200 do
      steps[i] = step("s" .. i, "c.weigh", { ref "big", i },
        { after = { i > 2 and "s" .. i - 1 or nil } })
    end
    local run = c:run(1, { steps = steps, output = ref "s200" })
    assert.are.equal(MIB + 200, run.output)
    moved_once(run, MIB)
    c:await_nothing_held()
  end)

  it("moves once for an `each` over fifty elements", function()
    local list = {}
    for i = 1, 50 do list[i] = i end
    local run = c:run(1, { steps = { step("big", "b.big", { MIB }),
      step("all", "c.weigh", { ref "big", { ["$item"] = "" } }, { each = list }) } })
    local by = records(run)
    for i = 1, 50 do assert.are.equal(MIB + i, run.output.all[i]) end
    assert.are.same({ "n3" }, { unpack(by.all.nodes) })
    moved_once(run, MIB)
    c:await_nothing_held()
  end)

  it("sends only the part that a path leads to", function()
    local run = c:run(1, { steps = { step("big", "b.big", { MIB }),
      step("sum", "c.sum", { ref "big.inner.list" }),
      step("size", "c.add", { ref "big.bytes", ref "big.inner.list[-1]" }),
      step("same", "c.first", { ref("big.nothing", 7) }) } })
    assert.are.same({ sum = 60, size = MIB + 30, same = 7 }, run.output)
    print(("# paths into 1 MiB: %d bytes moved"):format(run.summary.bytes_moved))
    assert.is_true(run.summary.bytes_moved <= 1.01 * MIB, run.summary.bytes_moved)
    c:await_nothing_held()
  end)

  it("decides about steps", function()
    local run = c:run(1, { steps = { step("big", "b.big", { MIB }),
      step("yes", "c.first", { "yes" }, { when = ref "big.yes" }),
      step("no", "c.first", { "no" }, { when = ref "big.no" }),
      step("missing", "c.first", { "missing" }, { when = ref "big.nothing" }),
      step("unless", "c.first", { "unless" }, { unless = ref "big.no" }) },
      output = { ref "yes", ref("no", "not"), ref("missing", "not"), ref "unless" } })
    assert.are.equal("succeeded", run.status)
    assert.are.same({ "yes", "not", "not", "unless" }, { unpack(run.output) })
    c:await_nothing_held()
  end)

  it("is a list to go through", function()
    local run = c:run(1, { steps = { step("list", "b.range", { 40000 }),
      step("sum", "c.sum", { ref "list" }),
      step("each", "a.add", { { ["$item"] = "" }, 1 }, { each = ref "list[3]", on_error = "fail" }),
    } })
    assert.are.equal("failed", run.status)
    assert.are.equal("NOT_A_LIST", run.error.reason)
    run = c:run(1, { steps = { step("list", "b.range", { 20000 }),
      step("bigger", "c.shift", { ref "list", 100000 }),
      step("each", "a.add", { { ["$item"] = "" }, 1 }, { each = ref "bigger", concurrency = 256 }),
      step("sum", "b.sum", { ref "each" }) }, output = ref "sum" })
    succeeded(run)
    assert.are.equal(20000 * 20001 / 2 + 20000 * 100001, run.output)
    c:await_nothing_held()
  end)

  it("that lacks the field asked for fails the step, naming the keys", function()
    local graph = { steps = { step("big", "b.big", { MIB }),
      step("use", "c.length", { ref "big.txt" }) } }
    local path = c:path() .. ".json"
    local file = assert(io.open(path, "w"))
    file:write((assert(codec.json_encode(graph))))
    file:close()
    local r = c[1]:mpreg { "run", path, "-o", "json" }
    assert.are.equal(1, r.code, r.err)
    local run = codec.json_decode(r.out)
    assert.are.same({ "failed", "INVALID_ARGUMENT", "MISSING_FIELD", "use" },
      { run.status, run.error.code, run.error.reason, run.error.step })
    for _, key in ipairs { "text", "bytes", "inner", "yes", "no" } do
      assert.truthy((run.error.message .. tostring(run.error.hint)):find(key, 1, true),
        run.error.message)
    end
    assert.are.equal("succeeded", run.steps[1].status)
    local output = c:run(1, { steps = { graph.steps[1] }, output = ref "big.txt" })
    assert.are.equal("MISSING_FIELD", output.error.reason)
    c:await_nothing_held()
  end)

  it("is shown by its size and beginning in a trace", function()
    local run = c:run(1, { steps = { step("big", "b.big", { MIB }),
      step("length", "c.length", { ref "big" }) } }, { trace = true })
    local shown = run.levels[1].results.big["$large"]
    assert.are.equal("map", shown.type)
    assert.is_true(shown.bytes > MIB and shown.bytes < MIB + 4096)
    assert.is_true(#shown.preview > 0 and #shown.preview < 4096)
    moved_once(run, MIB)
    c:await_nothing_held()
  end)

  it("over --value-max is refused with its step", function()
    local run = c:run(1, { steps = { step("big", "b.big", { 65 * MIB }),
      step("use", "c.length", { ref "big" }) } })
    assert.are.same({ "failed", "RESOURCE_EXHAUSTED", "TOO_LARGE", "big" },
      { run.status, run.error.code, run.error.reason, run.error.step })
    c:await_nothing_held()
  end)

  it("is let go when the run is cancelled or fails", function()
    local path = c:path()
    local request = c:client(1):run { steps = { step("big", "b.big", { MIB }),
      step("wait", "c.hold", { path }, { after = { "big" } }),
      step("use", "c.length", { ref "big" }, { after = { "wait" } }) } }
    cluster.await_lines(path)
    assert.are.equal(1, c:client(3):query("status", { on = "n2" }).held.count)
    c:client(1):cancel(request)
    assert.are.equal("cancelled", c:client(1):result(request).status)
    c:await_nothing_held()
    local run = c:run(1, { steps = { step("big", "b.big", { MIB }),
      step("fail", "c.fail", { "oops" }, { after = { "big" } }),
      step("use", "c.length", { ref "big" }, { after = { "fail" } }) } })
    assert.are.equal("failed", run.status)
    c:await_nothing_held()
  end)
end)
