-- Outputs stand here as they are.
-- luacheck: no max line length

local codec = require "mpreg.codec"
local commands = require "spec.support.commands"

local OLD, NEW = "01KB6QJ0V8XK3M2R7T9C4D5E6F", "01KB6QJ0W9XK3M2R7T9C4D5E7G"
local UNKNOWN = { code = "NOT_FOUND", reason = "UNKNOWN_RUN", message = "there is no such run" }

local function entry(id, node, started_at, more)
  local run = { run_id = id, name = "quakes", status = "succeeded", node = node,
    started_at = started_at, total_ms = 197.8, steps = 4, succeeded = 4, failed = 0 }
  for key, value in pairs(more or {}) do run[key] = value end
  return run
end

local function step(name, level, started, run_ms, after)
  return { name = name, call = "quakes." .. name, status = "succeeded", node = "n1",
    level = level, attempts = 1, depends_on = { after }, started_ms = started, ended_ms = started + run_ms,
    queue_ms = 0, network_ms = 0, run_ms = run_ms, error = codec.null }
end

local function quakes(status)
  return { run_id = OLD, name = "quakes", status = status or "succeeded", error = codec.null,
    output = codec.null, steps = { step("events", 0, 0, 50), step("strong", 1, 50, 150, "events") },
    summary = { total_ms = 200, levels = 2, level_ms = { 50, 150 }, steps = 2, retries = 0,
      nodes = { "n1" }, bottleneck_step = "strong", bottleneck_level = 1,
      critical_path = { "events", "strong" } } }
end

--- Three nodes, one of which does not answer.
local function cluster(what, query)
  if what == "nodes" then
    return { nodes = { { name = "n1", state = "alive" }, { name = "n2", state = "alive" },
      { name = "n3", state = "suspect" }, { name = "n4", state = "dead" } } }
  elseif what == "runs" and query.on == "n3" then
    return nil, { code = "UNAVAILABLE", reason = "NODE_LOST", message = "n3 did not answer" }
  elseif what == "runs" then
    return { node = query.on, dropped = 1, runs = query.on == "n1"
      and { entry(OLD, "n1", 1000) } or { entry(NEW, "n2", 2000, { status = "failed", succeeded = 2,
        failed = 1, resumed_from = OLD }) } }
  end
end

describe("cli.runs", function()
  it("asks every node that lives, and lists the newest first", function()
    local r = commands.run("runs", {}, cluster)
    assert.same({ 0, { "nodes", "runs on n1", "runs on n2", "runs on n3" } }, { r.code, r.asked })
    local out = r.out:gsub("%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d", "WHEN")
    assert.equal([[
RUN                         NAME    STATUS     STARTED                  TOOK  STEPS  NODE  NOTE
01KB6QJ0W9XK3M2R7T9C4D5E7G  quakes  failed     WHEN  197.8 ms    2/4  n2    1 failed, resumes 01KB6QJ0V8XK3M2R7T9C4D5E6F
01KB6QJ0V8XK3M2R7T9C4D5E6F  quakes  succeeded  WHEN  197.8 ms    4/4  n1
]], out)
    assert.same({ "no answer from n3: n3 did not answer" }, r.notes)
  end)

  it("gives a document, of one status, of so many, of one node", function()
    local document = commands.document(commands.run("runs", { "-o", "json" }, cluster))
    assert.same({ 2, NEW, OLD, 2 }, { #document.runs, document.runs[1].run_id,
      document.runs[2].run_id, document.dropped })
    local function ids(...)
      local list = {}
      local r = commands.run("runs", { "-o", "json", ... }, cluster)
      for i, run in ipairs(commands.document(r).runs) do list[i] = run.run_id end
      return list
    end
    assert.same({ NEW }, ids("--limit", "1"))
    assert.same({ OLD }, ids("--status", "succeeded"))
    assert.same({}, ids("--status", "lost"))
    assert.same({ OLD }, ids("--on", "n1"))
  end)

  it("sends the limit with the question, save where a status is wanted", function()
    local limits = {}
    local function answer(what, query)
      limits[#limits + 1] = what == "runs" and (query.limit or "none") or nil
      return cluster(what, query)
    end
    commands.run("runs", { "--on", "n1" }, answer)
    commands.run("runs", { "--on", "n1", "--limit", "3" }, answer)
    commands.run("runs", { "--on", "n1", "--status", "lost" }, answer)
    assert.same({ 20, 3, "none" }, limits)
  end)

  it("refuses wrong flags, and fails if nobody answers", function()
    for _, words in ipairs { { "--limit", "0" }, { "--status", "faild" }, { "--on", "n 1" }, { "x" } } do
      assert.equal(2, commands.run("runs", words, error).code)
    end
    local r = commands.run("runs", {}, function(what, query)
      if what == "nodes" then return { nodes = { { name = "n3", state = "alive" } } } end
      return cluster(what, query)
    end)
    assert.same({ 3, "NODE_LOST" }, { r.code, r.err.reason })
  end)
end)

describe("cli.trace", function()
  it("shows a run, also one that failed", function()
    local query
    local r = commands.run("trace", { OLD }, function(_, options)
      query = options
      return quakes "failed"
    end)
    assert.same({ 0, { "trace" }, { run = OLD } }, { r.code, r.asked, query })
    assert.equal([[
Run 01KB6QJ0V8XK3M2R7T9C4D5E6F quakes · failed · 2 levels · 2 steps · 1 node · 200.0 ms
Level 0   50.0 ms  ███████▌                        50.0%  new: events   available: events
Level 1  150.0 ms         ██████████████████████▌ 100.0%  new: strong   available: events, strong
bottleneck: strong (level 1, 75% of the run) · critical path: events → strong
]], r.out)
    r = commands.run("trace", { OLD, "-o", "json" }, function() return quakes() end)
    assert.equal(OLD, commands.document(r).run_id)
  end)

  it("finds the newest run, and one by either end of its id", function()
    for word, id in pairs { last = NEW, ["01KB6QJ0W9"] = NEW, d5e6f = "d5e6f", xD5E6F = "xD5E6F",
      C4D5E6F = OLD, c4d5e6f = OLD } do
      local asked_for
      commands.run("trace", { word }, function(what, query)
        if what ~= "trace" then return cluster(what, query) end
        asked_for = query.run
        return quakes()
      end)
      if word ~= "xD5E6F" then assert.equal(id, asked_for, word) else assert.is_nil(asked_for) end
    end
    local r = commands.run("trace", { "01KB6QJ0" }, cluster)
    assert.same({ 2, "BAD_RUN_ID" }, { r.code, r.err.reason })
    r = commands.run("trace", { "last" }, function(what, query)
      return what == "runs" and { runs = {} } or cluster(what, query)
    end)
    assert.same({ 3, "UNKNOWN_RUN" }, { r.code, r.err.reason })
  end)

  it("prints one result whole", function()
    local query
    local function answer(_, options)
      query = options
      return { rows = { 1, 2 } }
    end
    local r = commands.run("trace", { OLD, "--result", "events" }, answer)
    assert.same({ 0, { "result" }, { run = OLD, step = "events" } }, { r.code, r.asked, query })
    assert.equal('{"rows": [1, 2]}\n', r.out)
    assert.equal('{"rows":[1,2]}\n', commands.run("trace", { OLD, "--result", "events", "-o", "json" },
      answer).out)
    assert.equal(2, commands.run("trace", { OLD, "--result", "events", "--follow" }, error).code)
  end)

  local function watched(status, err)
    return function(what, query, _, tell)
      assert.same({ "watch", OLD }, { what, query.run })
      tell { event = "run_started", run_id = OLD, seq = 1, at_ms = 0, name = "quakes", steps = 2,
        levels = 2 }
      tell { event = "step_started", run_id = OLD, seq = 2, at_ms = 0.5, step = "events", node = "n1",
        call = "quakes.events" }
      if err then return nil, err end
      return quakes(status)
    end
  end

  it("follows a run, and then shows it", function()
    local r = commands.run("trace", { OLD, "--follow" }, watched "failed")
    assert.equal([[
    0.0 ms  run_started      quakes  2 steps, 2 levels
    0.5 ms  step_started     events  quakes.events  on n1
Run 01KB6QJ0V8XK3M2R7T9C4D5E6F quakes · failed · 2 levels · 2 steps · 1 node · 200.0 ms
]], r.out:match("^.-\n.-\n.-\n"))
    assert.equal(1, r.code)
    assert.equal(0, commands.run("trace", { OLD, "--follow" }, watched()).code)
  end)

  it("follows a run in lines of JSON", function()
    local r = commands.run("trace", { OLD, "--follow", "-o", "json" }, watched())
    local lines = {}
    for line in r.out:gmatch("[^\n]+") do lines[#lines + 1] = codec.json_decode(line).event end
    assert.same({ 0, { "run_started", "step_started" } }, { r.code, lines })
  end)

  it("says in a line of JSON how a run ended whose events are kept no longer", function()
    local r = commands.run("trace", { OLD, "--follow", "-o", "json" }, function()
      return quakes "failed"
    end)
    local event, run = commands.document(r), quakes "failed"
    assert.same({ 1, "run_finished", OLD, "failed", run.summary.total_ms, nil }, { r.code, event.event,
      event.run_id, event.status, event.at_ms, event.seq })
    assert.same(run.summary.steps, event.summary.steps)
  end)

  it("ends with the watching, not with the run", function()
    local r = commands.run("trace", { OLD, "--follow" }, watched(nil,
      { code = "CANCELLED", reason = "INTERRUPTED", message = "interrupted" }))
    assert.same({ 130, "the run goes on; mpreg cancel ends it" }, { r.code, r.err.hint })
  end)

  it("says when it failed", function()
    local lost = { code = "UNAVAILABLE", reason = "COORDINATOR_LOST", message = "n1 is gone" }
    local function code(words, err)
      return commands.run("trace", words, function() return nil, err end).code
    end
    assert.equal(3, code({ OLD }, UNKNOWN))
    assert.equal(2, code({ "x" }, { code = "INVALID_ARGUMENT", reason = "BAD_RUN_ID" }))
    assert.equal(3, code({ OLD }, lost))
    assert.equal(3, code({ OLD, "--follow" }, lost))
    assert.equal(1, commands.run("trace", { OLD, "--follow" }, watched(nil, lost)).code)
    assert.equal(2, code({ OLD, "--result", "x" }, { code = "NOT_FOUND", reason = "UNKNOWN_STEP" }))
    assert.equal(3, code({ OLD, "--result", "x" },
      { code = "FAILED_PRECONDITION", reason = "NO_RESULT" }))
    assert.equal(1, code({ OLD, "--result", "x" }, { code = "DATA_LOSS", reason = "RESULT_LOST" }))
    assert.equal(2, commands.run("trace", {}, error).code)
  end)
end)

describe("cli.why", function()
  it("speaks, within the width of a terminal", function()
    local function answer() return quakes() end
    local r = commands.run("why", { OLD }, answer)
    assert.same({ 0, { "trace" } }, { r.code, r.asked })
    assert.equal("The run took 200.0 ms, 200.0 ms of it on its critical path events → strong.",
      r.out:match("^[^\n]+"))
    r = commands.run("why", { OLD }, answer, { width = 40 })
    for line in r.out:gmatch("[^\n]+") do
      assert.is_true(require "mpreg.render.text".width(line) <= 40, line)
    end
  end)

  it("gives a document", function()
    local r = commands.run("why", { OLD, "-o", "json" }, function() return quakes() end)
    local document = commands.document(r)
    assert.same({ OLD, "succeeded", "compute", "strong" },
      { document.run_id, document.status, document.cause, document.step })
    assert.truthy(r.out:find('"chain":[]', 1, true))
    assert.equal(3, commands.run("why", { OLD }, function() return nil, UNKNOWN end).code)
  end)

  it("lets no text of a run drive the terminal", function()
    local r = commands.run("why", { OLD }, function()
      local run = quakes "failed"
      run.error = { code = "UNKNOWN", message = "no\27[2J" }
      return run
    end)
    assert.is_nil(r.out:find("\27", 1, true))
  end)
end)

describe("cli.cancel", function()
  local function answer(_, query)
    return { run_id = query.run, status = "cancelled", steps = {
      { name = "events", outcome = "done" }, { name = "strong", outcome = "stopped" },
      { name = "by_net", outcome = "never_started" }, { name = "report", outcome = "never_started" } } }
  end

  it("says what became of each step", function()
    local r = commands.run("cancel", { OLD }, answer)
    assert.same({ 0, { "cancel" } }, { r.code, r.asked })
    assert.equal([[
Run 01KB6QJ0V8XK3M2R7T9C4D5E6F: cancelled · stopped 1, done 1, never started 2

STEP    OUTCOME
events  done
strong  stopped
by_net  never_started
report  never_started
]], r.out)
    assert.equal("stopped",
      commands.document(commands.run("cancel", { OLD, "-o", "json" }, answer)).steps[2].outcome)
    assert.equal(3, commands.run("cancel", { OLD }, function() return nil, UNKNOWN end).code)
  end)
end)

describe("cli.resume", function()
  it("sends which run, and from where", function()
    local sent, options
    local r = commands.run("resume", { OLD, "--from", "strong", "--trace", "-o", "json" },
      function(_, opts, payload)
        sent, options = payload, opts
        return quakes()
      end)
    assert.same({ 0, { "run" }, { resume = OLD, from = "strong" }, true },
      { r.code, r.asked, sent, options.trace })
    assert.equal(OLD, commands.document(r).run_id)
    assert.equal(1, commands.run("resume", { OLD }, function() return quakes "failed" end).code)
  end)

  it("is refused before anything ran", function()
    for _, reason in ipairs { "RUN_SUCCEEDED", "RUN_GOES_ON", "GRAPH_CHANGED" } do
      local r = commands.run("resume", { OLD }, function()
        return nil, { code = "FAILED_PRECONDITION", reason = reason }
      end)
      assert.same({ 2, reason }, { r.code, r.err.reason })
    end
    assert.equal(3, commands.run("resume", { OLD }, function() return nil, UNKNOWN end).code)
    assert.equal(2, commands.run("resume", { OLD, "--detach", "--follow" }, error).code)
    assert.equal(2, commands.run("resume", { OLD, "--from", "a b" }, error).code)
  end)

  it("gives the receipts of what was interrupted", function()
    local r = commands.run("resume", { OLD, "-o", "json" }, function()
      local run = quakes "cancelled"
      run.receipts = { { name = "events", outcome = "done" }, { name = "strong", outcome = "stopped" } }
      return nil, { code = "CANCELLED", reason = "INTERRUPTED", message = "interrupted" }, run
    end)
    assert.same({ 130, { "stopped 1, done 1" } }, { r.code, r.notes })
    assert.equal("cancelled", commands.document(r).status)
  end)
end)
