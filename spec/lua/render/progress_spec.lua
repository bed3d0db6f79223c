local progress = require "mpreg.render.progress"

describe("render.progress", function()
  local function feed(screen, ...)
    for _, event in ipairs { ... } do screen:event(event) end
  end

  local started = { event = "run_started", at_ms = 0, name = "quakes", steps = 4, levels = 3 }
  local function start(step, at, more)
    local event = { event = "step_started", step = step, at_ms = at, node = "n1", call = "m.f" }
    for key, value in pairs(more or {}) do event[key] = value end
    return event
  end

  it("draws the run's state", function()
    local screen = progress.new { width = 80 }
    feed(screen, started, start("events", 0.5),
      { event = "step_succeeded", step = "events", at_ms = 45.7, node = "n1", run_ms = 44 },
      start("strong", 46), start("by_net", 46.5, { total = 10 }),
      { event = "step_progress", step = "by_net", at_ms = 60, done = 3, total = 10 })
    assert.are.same({
      "quakes  ██████                    1 of 4 steps · 60.0 ms",
      "  ✓ events        45.2 ms  n1",
      "  • strong  since 46.0 ms  n1",
      "  • by_net        3 of 10  n1",
    }, screen:text())
    feed(screen,
      { event = "step_failed", step = "strong", at_ms = 90, error = { code = "UNKNOWN" } },
      { event = "step_skipped", step = "report", at_ms = 90 })
    assert.are.same({
      "quakes  ██████████████████        3 of 4 steps · 1 failed · 90.0 ms",
      "  ✓ events  45.2 ms  n1",
      "  ✗ strong  44.0 ms  n1",
      "  – report   0.0 ms",
      "  • by_net  3 of 10  n1",
    }, screen:text())
  end)

  it("draws over itself and removes itself", function()
    local screen = progress.new { width = 80 }
    assert.are.equal("", screen:erase())
    feed(screen, started)
    assert.are.equal("quakes                            0 of 4 steps · 0.0 ms\n", screen:draw())
    assert.are.equal("\27[1A\r\27[J", screen:draw():sub(1, 8))
    assert.are.equal("\27[1A\r\27[J", screen:erase())
    assert.are.equal("", screen:erase())
  end)

  it("has the state in one line, within the width", function()
    local screen = progress.new { width = 120 }
    feed(screen, started, start("events", 0.5),
      { event = "step_succeeded", step = "events", at_ms = 45.7, node = "n1", run_ms = 44 },
      { event = "level_completed", level = 0, at_ms = 45.7 }, start("strong", 46))
    assert.are.equal("quakes  ████              1 of 4 steps · running: strong on n1"
      .. " · 1 of 3 levels complete", screen:status())
    feed(screen, start("by_net", 46.5, { total = 12 }),
      { event = "step_progress", step = "by_net", at_ms = 60, done = 3, total = 12 })
    for i = 1, 4 do screen:event(start("s" .. i, 50)) end
    screen:event { event = "step_failed", step = "s4", at_ms = 51 }
    local status = screen:status()
    assert.truthy(status:find("2 of 4 steps · 1 failed · running: strong on n1, ", 1, true), status)
    assert.truthy(status:find(", by_net 3/12 on n1, s1 on n1, +2 ", 1, true), status)
    screen.width = 40
    assert.is_true(require "mpreg.render.text".width(screen:status()) < 40, screen:status())
    assert.is_nil(screen:status():find("\n", 1, true))
  end)

  it("shows the beginning of a step's result", function()
    local function line(result)
      return progress.result_line { event = "step_succeeded", result = result }
    end
    assert.are.equal("            = { 1, 2, 3 }", line { 1, 2, 3 })
    assert.are.equal('            = "a\\nb"', line "a\nb")
    assert.are.equal('            = map of 79.1 KiB: {"features":[…',
      line { ["$large"] = { bytes = 81023, type = "map", preview = '{"features":[…' } })
    assert.is_nil(line(nil))
    assert.is_nil(progress.result_line { event = "step_failed", result = 1 })
    assert.is_true(#line(("x"):rep(1000)) < 250)
  end)

  it("takes few lines, however wide the graph is", function()
    local screen = progress.new { width = 80 }
    feed(screen, { event = "run_started", at_ms = 0, name = "wide", steps = 1000, levels = 1 })
    for i = 1, 1000 do screen:event(start("s" .. i, i)) end
    for i = 1, 500 do
      screen:event { event = "step_succeeded", step = "s" .. i, at_ms = 2000 + i }
    end
    assert.is_true(#screen:text() <= 10)
    assert.are.equal("  … (+492 running)", screen:text()[10])
  end)

  it("keeps to the width", function()
    local screen = progress.new { width = 30 }
    feed(screen, started, start(("long"):rep(16), 1))
    assert.are.equal("  • longlonglong…  since 1.0 …", screen:text()[2])
  end)

  it("writes an event as a line", function()
    local lines = {
      { { event = "run_started", at_ms = 0, name = "q", steps = 1, levels = 1 },
        "    0.0 ms  run_started      q  1 step, 1 level" },
      { start("a", 0.5), "    0.5 ms  step_started     a  m.f  on n1" },
      { { event = "step_succeeded", at_ms = 45.2, step = "a", run_ms = 44.1, node = "n1" },
        "   45.2 ms  step_succeeded   a  44.1 ms  on n1" },
      { { event = "step_failed", at_ms = 50, step = "b",
          error = { code = "UNKNOWN", reason = "FUNCTION_ERROR", message = "no\27[2J" } },
        "   50.0 ms  step_failed      b  UNKNOWN/FUNCTION_ERROR: no\\x1b[2J" },
      { { event = "step_retried", at_ms = 50, step = "b", attempt = 2, index = 3,
          error = { code = "UNAVAILABLE" } },
        "   50.0 ms  step_retried     b  element 3  attempt 2  UNAVAILABLE:" },
      { { event = "step_succeeded", at_ms = 0, step = "a", run_ms = 0, attempts = 0 },
        "    0.0 ms  step_succeeded   a  kept" },
      { { event = "level_completed", at_ms = 50, level = 0, progress = 50, steps = { "a", "b" } },
        "   50.0 ms  level_completed  level 0  50.0%  new: a, b" },
      { { event = "run_started", at_ms = 0, name = "q", steps = 1, levels = 1,
          resumed_from = "01KA" },
        "    0.0 ms  run_started      q  1 step, 1 level  resumes 01KA" },
      { { event = "step_skipped", at_ms = 50, step = "c", because_step = "b" },
        "   50.0 ms  step_skipped     c  because of b" },
      { { event = "level_completed", at_ms = 50, level = 0, progress = 50 },
        "   50.0 ms  level_completed  level 0  50.0%" },
      { { event = "run_finished", at_ms = 51, status = "succeeded" },
        "   51.0 ms  run_finished     succeeded" },
      { { event = "news", at_ms = 1 }, "    1.0 ms  news" },
    }
    for _, case in ipairs(lines) do
      assert.are.equal(case[2], progress.event_line(case[1]))
    end
  end)
end)
