-- Outputs stand here as they are.
-- luacheck: no max line length

local trace = require "mpreg.render.trace"

describe("render.trace", function()
  local function step(name, level, started_ms, run_ms, status)
    return { name = name, level = level, started_ms = started_ms, run_ms = run_ms, queue_ms = 0,
      network_ms = 0, status = status or "succeeded" }
  end

  local function quakes()
    return {
      run_id = "01KB", status = "succeeded",
      steps = { step("events", 0, 0, 50), step("strong", 1, 50, 125), step("by_net", 2, 175, 15),
        step("report", 3, 190, 10) },
      summary = { total_ms = 200, levels = 4, level_ms = { 50, 125, 15, 10 }, steps = 4, retries = 0,
        nodes = { "n1", "n2" }, bottleneck_step = "strong", bottleneck_level = 1,
        critical_path = { "events", "strong", "by_net", "report" } },
    }
  end

  it("draws a bar for each level: where it is in time, how long it took", function()
    assert.are.equal([[
Run 01KB quakes · succeeded · 4 levels · 4 steps · 2 nodes · 200.0 ms
Level 0   50.0 ms  ███████▌                        25.0%  new: events   available: events
Level 1  125.0 ms         ██████████████████▊      50.0%  new: strong   available: events, strong
Level 2   15.0 ms                            ██▎   75.0%  new: by_net   available: events, strong, by_net
Level 3   10.0 ms                              █▌ 100.0%  new: report   available: events, strong, by_net, report
bottleneck: strong (level 1, 63% of the run) · critical path: events → strong → by_net → report
]], trace.text(quakes(), { name = "quakes" }))
  end)

  local function spread()
    local run = quakes()
    run.steps[1].node, run.steps[3].node, run.steps[4].node = "n1", "n2", "n2"
    run.steps[2].node, run.steps[2].nodes = "n3", { "n2", "n3" }
    run.steps[5] = step("largest", 1, 50, 20)
    run.steps[5].node = "n2"
    run.steps[6] = { name = "late", level = 3, status = "cancelled", node = require "cjson".null }
    run.summary.nodes = { "n1", "n2", "n3" }
    run.summary.remote_calls, run.summary.bytes_moved = 7, 90112
    return run
  end

  it("says what ran where if it was more than one node", function()
    assert.are.equal([[
Run 01KB · succeeded · 4 levels · 4 steps · 3 nodes · 200.0 ms
Level 0   50.0 ms  ███████▌                        25.0%  new: events            available: events
        n1: events
Level 1  125.0 ms         ██████████████████▊      50.0%  new: strong, largest   available: events, strong, largest
        n2: strong, largest · n3: strong
Level 2   15.0 ms                            ██▎   75.0%  new: by_net            available: events, strong, largest, by_net
        n2: by_net
Level 3   10.0 ms                              █▌  75.0%  new: report            cancelled: late   available: events, strong, largest, by_net, report
        n2: report
bottleneck: strong (level 1, 63% of the run) · critical path: events → strong → by_net → report
between nodes: 7 calls, 88.0 KiB moved
]], trace.text(spread()))
    local run = spread()
    run.summary.nodes, run.summary.remote_calls = { "n1" }, 0
    assert.is_nil(trace.text(run):find("n1: events", 1, true))
  end)

  it("names the first of many nodes, within the width of a terminal", function()
    local run = spread()
    run.steps[2].nodes = {}
    for i = 1, 20 do run.steps[2].nodes[i] = ("node-%02d"):format(i) end
    local text = trace.text(run)
    assert.is_truthy(text:find(" · node-07: strong · … (+13)\n", 1, true), text)
    for line in trace.text(run, { width = 80 }):gmatch("( [^\n]*node[^\n]*)\n") do
      assert.is_true(require "mpreg.render.text".width(line) <= 80, line)
    end
  end)

  it("keeps to the width of a terminal", function()
    for line in trace.text(quakes(), { width = 80 }):gmatch("(Level[^\n]*)\n") do
      assert.is_true(require "mpreg.render.text".width(line) <= 80, line)
    end
  end)

  it("shows what failed, was skipped and never ran", function()
    local run = {
      run_id = "01KB", status = "failed",
      steps = { step("a", 0, 0, 10), step("b", 0, 0, 20, "failed"),
        { name = "c", level = 1, status = "skipped" },
        { name = "d", level = 1, status = "cancelled" } },
      summary = { total_ms = 20, levels = 2, level_ms = { 20, 0 }, steps = 4, retries = 2,
        nodes = { "n" }, critical_path = {} },
    }
    assert.are.equal([[
Run 01KB · failed · 2 levels · 4 steps · 1 node · 20.0 ms · 2 retries
Level 0   20.0 ms  ██████████████████████████████   0.0%  new: a   failed: b   available: a
Level 1    0.0 ms                                   0.0%  new:   cancelled: d   skipped: c   available: a
]], (trace.text(run):gsub("new: +", function(s) return #s > 6 and "new:   " or s end)))
  end)

  it("tells what was kept from another run", function()
    local run = quakes()
    run.resumed_from = "01KA"
    for i = 1, 2 do
      run.steps[i].attempts, run.steps[i].started_ms, run.steps[i].run_ms = 0, nil, 0
    end
    run.summary.total_ms, run.summary.level_ms = 25, { 0, 0, 15, 10 }
    run.steps[3].started_ms, run.steps[4].started_ms = 0, 15
    run.summary.critical_path = { "by_net", "report" }
    run.summary.bottleneck_step, run.summary.bottleneck_level = "by_net", 2
    assert.are.equal([[
Run 01KB · succeeded · 4 levels · 4 steps · 2 nodes · 25.0 ms · resumes 01KA
Level 0    0.0 ms                                  25.0%  new:          kept: events   available: events
Level 1    0.0 ms                                  50.0%  new:          kept: strong   available: events, strong
Level 2   15.0 ms  ██████████████████              75.0%  new: by_net   available: events, strong, by_net
Level 3   10.0 ms                    ████████████ 100.0%  new: report   available: events, strong, by_net, report
bottleneck: by_net (level 2, 60% of the run) · critical path: by_net → report
]], trace.text(run))
  end)

  it("shortens long lists and paths", function()
    local run = quakes()
    run.steps, run.summary.critical_path = {}, {}
    for i = 1, 100 do
      run.steps[i] = step("s" .. i, 0, 0, 1)
      run.summary.critical_path[i] = "s" .. i
    end
    run.summary.levels, run.summary.level_ms, run.summary.bottleneck_step = 1, { 200 }, nil
    local text = trace.text(run)
    assert.is_truthy(text:find("s11, s12, … (+88)   available", 1, true), text)
    assert.is_truthy(text:find("s5 → s6 → … (+88) → s95 → s96", 1, true), text)
  end)

  it("shows the first and the last of many levels", function()
    local run = { run_id = "01KB", status = "succeeded", steps = {},
      summary = { total_ms = 100, levels = 100, level_ms = {}, steps = 100, retries = 0, nodes = {} } }
    for i = 1, 100 do
      run.steps[i] = step("s" .. i, i - 1, i, 1)
      run.summary.level_ms[i] = 1
    end
    local text = trace.text(run)
    assert.is_truthy(text:find("Level 19 [^\n]*new: s20[^\n]*\n… %(%+60 levels%)\nLevel 80 "), text)
    assert.is_truthy(text:find("\nLevel 99 [^\n]*s12, … %(%+88%)\n"), text)
  end)

  it("draws bars in eighths, at least one, within the columns", function()
    assert.are.same({ "▏", 1 }, { trace.bar(0, 0, 10) })
    assert.are.same({ "██████████", 10 }, { trace.bar(0, 1, 10) })
    assert.are.same({ "     ██▌", 8 }, { trace.bar(0.5, 0.25, 10) })
    assert.are.same({ "         ▏", 10 }, { trace.bar(1, 0, 10) })
    assert.are.same({ "         █", 10 }, { trace.bar(0.95, 3, 10) })
  end)

  it("measures a step with each by the clock, not by the sum of its elements", function()
    local run = quakes()
    run.steps[2].run_ms, run.steps[2].ended_ms = 900, 150
    assert.is_truthy(trace.text(run):find("strong (level 1, 50% of the run)", 1, true))
  end)

  it("is colourful only if told so", function()
    assert.is_nil(trace.text(quakes()):find("\27", 1, true))
    assert.is_truthy(trace.text(quakes(), { color = true }):find("\27[32msucceeded\27[0m", 1, true))
  end)
end)
