-- Sentences stand here as they are.
-- luacheck: no max line length

local codec = require "mpreg.codec"
local timed_run = require "spec.support.timed_run"
local why = require "mpreg.why"

local function step(name, more)
  local record = { name = name, call = "quakes." .. name, version = "1.0.0", status = "succeeded",
    node = "n1", worker = 1, level = 0, attempts = 1, depends_on = {}, started_ms = 0, ended_ms = 0,
    queue_ms = 0, network_ms = 0, run_ms = 0, retry_ms = 0, wait_ms = 0, bytes_in = 10,
    bytes_out = 2048, error = codec.null }
  for key, value in pairs(more) do record[key] = value end
  return record
end

local function quakes()
  return { run_id = "01KB", status = "succeeded", error = codec.null, steps = {
    step("events", { started_ms = 0.4, ended_ms = 45.4, queue_ms = 0.5, network_ms = 0.5, run_ms = 44 }),
    step("strong", { started_ms = 45.4, ended_ms = 169.1, queue_ms = 3.1, network_ms = 0.6, run_ms = 120,
      depends_on = { "events" }, level = 1 }),
    step("side", { started_ms = 45.4, ended_ms = 125.4, run_ms = 80, depends_on = { "events" }, level = 1 }),
    step("report", { started_ms = 169.1, ended_ms = 190.1, queue_ms = 12, run_ms = 9,
      depends_on = { "strong", "side" }, level = 2 }),
  }, summary = { total_ms = 190.5, levels = 3, critical_path = { "events", "strong", "report" } } }
end

local function failed()
  local err = { code = "UNKNOWN", reason = "FUNCTION_ERROR", message = "no price for 7", step = "price",
    fun = "shop.price", node = "n2", attempt = 3, hint = "add it to the list.",
    traceback = { { node = "n2", file = "shop.lua", line = 12, ["function"] = "price_of" },
      { node = "n2", file = "shop.lua", line = 30, ["function"] = "price" } },
    cause = { code = "NOT_FOUND", reason = "NO_ROW", message = "no row 7",
      traceback = { { node = "n3", file = "rows.lua", line = 4, ["function"] = "get" } } } }
  local function try(k, started, delay, what)
    return { attempt = k, node = "n2", worker = 1, started_ms = started, queue_ms = 0, network_ms = 0,
      run_ms = 2, delay_ms = delay, error = what }
  end
  return { run_id = "01KB", status = "failed", error = err, steps = {
    step("load", { ended_ms = 5, run_ms = 5 }),
    step("price", { status = "failed", depends_on = { "load" }, level = 1, attempts = 3, node = "n2",
      started_ms = 5, ended_ms = 311, run_ms = 6, retry_ms = 304, error = err,
      tries = { try(1, 5, 100, { code = "UNAVAILABLE", reason = "WORKER_LOST", message = "gone" }),
        try(2, 107, 200, err), try(3, 309, 0, err) } }),
    step("bill", { status = "skipped", because = "failure", because_step = "price", level = 2,
      depends_on = { "price" }, started_ms = codec.null, ended_ms = 311, node = codec.null }),
    step("mail", { status = "skipped", because = "failure", because_step = "bill", level = 3,
      depends_on = { "bill" }, started_ms = codec.null, ended_ms = 311, node = codec.null }),
  }, summary = { total_ms = 311, levels = 4, critical_path = { "load", "price", "bill", "mail" } } }
end

describe("why", function()
  it("says where the time went, and what a faster step would win", function()
    local answer = why.of(quakes())
    assert.are.same({
      "The run took 190.5 ms, 190.1 ms of it on its critical path events → strong → report.",
      "65 % of that is strong (123.7 ms): 120.0 ms executing quakes.strong on n1.",
      "The whole path: 173.0 ms executing functions, 15.6 ms waiting for a worker.",
      "Making strong faster wins at most 43.7 ms (23 %), since then side is the longest; half of its time wins 43.7 ms.",
      "To win it, make quakes.strong faster, or split its work into a list (each).",
    }, answer.sentences)
    assert.are.same({ "01KB", "succeeded", "compute", "strong" },
      { answer.run_id, answer.status, answer.cause, answer.step })
    assert.are.same({ step = "strong", ms = 43.7, half_ms = 43.7, ["then"] = "side" }, answer.win)
    assert.are.same({ step = "strong", queue_ms = 3.1, network_ms = 0.6, run_ms = 120, retry_ms = 0,
      wait_ms = 0, gap_ms = 0, share = 64.934 }, answer.path[2])
    assert.are.same({}, answer.chain)
  end)

  it("names another step if more is to be won there", function()
    local run = quakes()
    run.steps[3].run_ms, run.steps[3].ended_ms = 123, 168.4
    local answer = why.of(run)
    assert.are.same({ "strong", "events" }, { answer.step, answer.win.step })
    assert.truthy(answer.sentences[5]:find("^More is to be won at events: it wins at most 45.4 ms "),
      answer.sentences[5])
  end)

  it("names the cause that was injected, in 200 random runs", function()
    local first = tonumber(os.getenv "MPREG_SEED") or 1
    for seed = first, first + 199 do
      local run, truth = timed_run.random(seed)
      local answer = why.of(run)
      local what = ("MPREG_SEED=%d: %s"):format(seed, table.concat(answer.sentences, "\n"))
      assert.are.same({ truth.cause, truth.step }, { answer.cause, answer.step }, what)
      assert.truthy(answer.sentences[1]:find("The run took", 1, true), what)
      -- The parts of the path add up to its length, and nothing can be won that was not spent.
      local sum = 0
      for _, item in ipairs(answer.path) do
        sum = sum + item.queue_ms + item.network_ms + item.run_ms + item.retry_ms + item.wait_ms
          + item.gap_ms
      end
      assert.is_true(math.abs(sum + 0.05 - run.summary.total_ms) < 0.05, what)
      assert.is_true(answer.win.ms <= run.summary.total_ms and answer.win.ms >= answer.win.half_ms,
        what)
    end
  end)

  it("tells of a list its slowest element, and how many ran side by side", function()
    local run = quakes()
    local strong = run.steps[2]
    strong.items, strong.nodes = { total = 12, succeeded = 12 }, { "n1", "n2" }
    strong.queue_ms, strong.network_ms, strong.run_ms = 24, 6, 217.4
    strong.slowest = { index = 7, node = "n2", attempts = 1, started_ms = 50, ended_ms = 150,
      queue_ms = 80, network_ms = 1, run_ms = 19, retry_ms = 0 }
    local answer = why.of(run)
    assert.are.equal("queue", answer.cause)
    assert.are.equal("strong called quakes.strong for 12 elements on n1, n2, 2.0 of them at a time.",
      answer.sentences[3])
    assert.are.equal("The slowest, element 7, took 100.0 ms, where the mean is 20.6 ms: 80.0 ms waiting for a worker, 19.0 ms executing quakes.strong on n2.",
      answer.sentences[4])
  end)

  it("leads from the symptom of a failure to its cause", function()
    local answer = why.of(failed())
    assert.are.same({
      "The run failed because step price (quakes.price) failed on n2, in attempt 3 of 3: no price for 7 (UNKNOWN/FUNCTION_ERROR).",
      "It was raised in shop.lua:12 (price_of) on n2, called from shop.lua:30 (price).",
      "That was caused by no row 7 (NOT_FOUND/NO_ROW), raised in rows.lua:4 (get) on n3.",
      "Attempt 1 of price on n2 failed after 2.0 ms and was followed by a pause of 100.0 ms: gone (UNAVAILABLE/WORKER_LOST).",
      "Attempt 2 of price on n2 failed after 2.0 ms and was followed by a pause of 200.0 ms: no price for 7 (UNKNOWN/FUNCTION_ERROR).",
      "Because of it 2 steps were skipped: bill, mail.",
      "1 of 4 steps succeeded: load.",
      "Hint: add it to the list.",
      "mpreg resume 01KB runs price, bill, mail, with the code that is live then, and keeps load.",
      "Of its 311.0 ms it spent 311.0 ms on its critical path load → price.",
      "98 % of that is price (306.0 ms): 304.0 ms in attempts that failed and the pauses after them.",
    }, answer.sentences)
    assert.are.same({ "retry", "price" }, { answer.cause, answer.step })
    assert.are.same({ what = "run", code = "UNKNOWN", reason = "FUNCTION_ERROR",
      message = "no price for 7" }, answer.chain[1])
    local places = {}
    for i = 2, #answer.chain do
      local link = answer.chain[i]
      places[i - 1] = ("%s %s %s %s"):format(link.what, tostring(link.node), tostring(link.file),
        tostring(link.line))
    end
    assert.are.same({ "step n2 nil nil", "call n2 shop.lua 30", "raise n2 shop.lua 12",
      "raise n3 rows.lua 4" }, places)
  end)

  it("names the element of a list that failed", function()
    local run = failed()
    run.error.index = 3
    assert.truthy(why.of(run).sentences[1]:find("because element 3 of step price", 1, true))
  end)

  it("says of a run that failed as a whole what it failed with", function()
    local run = quakes()
    run.status = "failed"
    run.error = { code = "INVALID_ARGUMENT", reason = "MISSING_FIELD", message = "no field text" }
    local answer = why.of(run)
    assert.are.equal("The run failed: no field text (INVALID_ARGUMENT/MISSING_FIELD).",
      answer.sentences[1])
    assert.are.equal("4 of 4 steps succeeded: events, strong, side, report.", answer.sentences[2])
  end)

  it("says of a run that timed out what was running then", function()
    local run = quakes()
    run.status = "timed_out"
    run.error = { code = "DEADLINE_EXCEEDED", reason = "DEADLINE_EXCEEDED", message = "200 ms are over" }
    run.steps[4].status = "timed_out"
    local sentences = why.of(run).sentences
    assert.are.equal("The run timed out: 200 ms are over (DEADLINE_EXCEEDED/DEADLINE_EXCEEDED).",
      sentences[1])
    assert.are.equal("1 step was running then: report (quakes.report on n1, for 21.0 ms).", sentences[2])
    assert.are.equal("mpreg resume 01KB runs report, with the code that is live then, and keeps events, strong, side.",
      sentences[4])
  end)

  it("gives the receipts of a run that was cancelled", function()
    local run = quakes()
    run.status = "cancelled"
    run.steps[3].status, run.steps[4].status = "cancelled", "cancelled"
    run.receipts = { { name = "events", outcome = "done" }, { name = "strong", outcome = "done" },
      { name = "side", outcome = "stopped" }, { name = "report", outcome = "never_started" } }
    local sentences = why.of(run).sentences
    assert.are.same({ "The run was cancelled after 190.5 ms.",
      "1 step stopped, as its worker confirmed: side.", "1 step never started: report." },
      { sentences[1], sentences[2], sentences[3] })
  end)

  it("speaks of runs that go on, were lost, or resume another one", function()
    local run = quakes()
    run.status, run.steps[4].status, run.steps[4].ended_ms = "running", "running", codec.null
    local sentences = why.of(run).sentences
    assert.are.same({ "The run goes on, for 190.5 ms so far.",
      "1 step runs now: report (quakes.report on n1, for 21.4 ms).",
      "3 of 4 steps succeeded: events, strong, side." }, { sentences[1], sentences[2], sentences[3] })
    assert.are.equal("Of its 190.5 ms it spent 190.5 ms on its critical path events → strong → report.",
      sentences[4])
    run.status = "lost"
    sentences = why.of(run).sentences
    assert.are.equal("The run was lost after 190.5 ms: the node that coordinated it ended in the middle of it.",
      sentences[1])
    assert.truthy(sentences[4]:find("^mpreg resume 01KB runs report,"), sentences[4])
    run = quakes()
    run.resumed_from, run.steps[1].attempts, run.steps[1].started_ms = "01KA", 0, codec.null
    assert.are.equal("It resumes run 01KA and keeps 1 result of it: events.", why.of(run).sentences[1])
  end)

  it("finds the path itself where the run does not tell it", function()
    local run = quakes()
    run.summary.critical_path = nil
    assert.are.equal("strong", why.of(run).step)
    assert.are.equal(3, #why.of(run).path)
  end)

  it("has something to say of a run in which nothing ran", function()
    local run = { run_id = "01KB", status = "cancelled", error = codec.null, summary = { total_ms = 0 },
      steps = { step("a", { status = "cancelled", started_ms = codec.null, ended_ms = 0 }) } }
    local answer = why.of(run)
    assert.are.equal("The run was cancelled after 0.0 ms.", answer.sentences[1])
    assert.are.same({ {} }, { answer.path, answer.cause, answer.win })
  end)

  it("is quick with chains of many steps", function()
    local run = { run_id = "01KB", status = "succeeded", error = codec.null, steps = {},
      summary = { total_ms = 20000, levels = 20000, critical_path = {} } }
    for i = 1, 20000 do
      run.steps[i] = step("s" .. i, { level = i - 1, started_ms = i - 1, ended_ms = i, run_ms = 1,
        depends_on = i > 1 and { "s" .. i - 1 } or {} })
      run.summary.critical_path[i] = "s" .. i
    end
    local started = os.clock()
    local answer = why.of(run)
    assert.is_true(os.clock() - started < 5)
    assert.truthy(answer.sentences[1]:find("s5 → s6 → … (+19988) → s19995", 1, true))
  end)
end)
