-- Runs, seen from elsewhere and afterwards: watched, explained, cancelled, resumed.

local client = require "spec.support.client"
local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

local QUIET_MS = 1500     -- for which nothing may be sent
local AT_ONCE_MS = 2000 * cluster.SLOW
local WATCHERS = 1000

local function ref(path) return { ["$ref"] = path } end

local function step(name, call, args, more)
  local s = { name = name, call = call, args = codec.array(args or {}) }
  for key, value in pairs(more or {}) do s[key] = value end
  return s
end

local function decode(text) return assert(codec.json_decode(text)) end

local function lines_of(text)
  local list = {}
  for line in text:gmatch("([^\n]+)\n") do list[#list + 1] = decode(line) end
  return list
end

local function touch(path) assert(io.open(path, "w")):close() end

local function step_of(run, name)
  for _, s in ipairs(run.steps) do
    if s.name == name then return s end
  end
end

--- Runs a command to its end at a node, and asserts its exit code.
local function command(n, code, ...)
  local r = n:mpreg { ... }
  assert.are.equal(code, r.code,
    ("mpreg %s\n%s%s"):format(table.concat({ ... }, " "), r.out, r.err))
  return r
end

local function json(n, code, ...)
  local words = { ... }
  words[#words + 1] = "-o"
  words[#words + 1] = "json"
  return decode(command(n, code, unpack(words)).out)
end

describe("a run of many nodes", function()
  local c
  setup(function()
    c = cluster.start("mesh", { { modules = { "a" }, workers = 2 },
      { modules = { "b" }, workers = 2 },
      { modules = { "d" } } })
  end)
  teardown(function()
    c:close()
    node.stop_all()
  end)

  local function write(graph)
    local path = c:path() .. ".json"
    local file = assert(io.open(path, "w"))
    file:write((assert(codec.json_encode(graph))))
    file:close()
    return path
  end

  --- Begins a graph at n1 and leaves it.
  local function begin(graph)
    return json(c.n1, 0, "run", write(graph), "--detach").run_id
  end

  local function over(id)
    node.eventually(function()
      for _, run in ipairs(json(c.n2, 0, "runs", "--on", "n1").runs) do
        if run.run_id == id then return run.status ~= "running" end
      end
      return false
    end, "the end of a run", 20)
    return json(c.n2, 0, "trace", id)
  end

  local function three_levels()
    return { name = "three", steps = { step("one", "a.range", { 5 }),
      step("two", "b.shift", { ref "one", 1 }), step("three", "a.sum", { ref "two" }) } }
  end

  --- A step that another one waits for, held until PATH.go is there.
  local function held(path)
    return { name = "held", steps = { step("first", "a.add", { 1, 2 }),
      step("wait", "b.hold", { path }, { after = { "first" } }),
      step("last", "a.first", { ref "wait" }) } }
  end

  it("is listed by all nodes, and shown and explained by any", function()
    local id = json(c.n1, 0, "run", write(three_levels())).run_id
    for _, n in ipairs { c.n1, c.n2, c.n3 } do
      local listed = json(n, 0, "runs", "--limit", "1").runs
      local row = listed[1]
      assert.are.same({ id, "three", "succeeded", "n1", 3, 3, 0 }, { row.run_id, row.name,
        row.status, row.node, row.steps, row.succeeded, row.failed })
      local run = json(n, 0, "trace", id)
      assert.are.same({ id, "succeeded", 20 }, { run.run_id, run.status, run.output.three })
      assert.are.equal("two", json(n, 0, "why", id).path[2].step)
    end
    assert.is_truthy(command(c.n3, 0, "runs", "--on", "n1").out:find(id, 1, true))
    assert.are.same({}, { unpack(json(c.n3, 0, "runs", "--on", "n2").runs) })
    for _, word in ipairs { "last", id:sub(-8), id:lower() } do
      local r = c.n2:mpreg { "trace", word, "-o", "json" }
      if r.code == 0 then assert.are.equal(id, decode(r.out).run_id) end
      assert.is_true(r.code == 0 or word == id:lower(), r.err)
    end
  end)

  it("of three levels has a trace with 33.3, 66.7 and 100 %, and ever more available", function()
    local id = begin(three_levels())
    over(id)
    local out = command(c.n3, 0, "trace", id).out
    for _, pattern in ipairs {
      "^Run " .. id .. " three · succeeded · 3 levels · 3 steps · 2 nodes · ",
      "\nLevel 0 +[%d.]+ ms  .-  33%.3%%  new: one     available: one\n",
      "\nLevel 1 +[%d.]+ ms  .-  66%.7%%  new: two     available: one, two\n",
      "\nLevel 2 +[%d.]+ ms  .- 100%.0%%  new: three   available: one, two, three\n",
      "\nbottleneck: %w+ %(level %d, %d+%% of the run%) · critical path: one → two → three\n",
    } do
      assert.is_truthy(out:find(pattern), out)
    end
  end)

  it("is watched from its first event on, whenever and wherever one comes", function()
    local path = c:path()
    local id = begin(held(path))
    cluster.await_lines(path)
    local early = c.n3:spawn { "trace", id, "--follow", "-o", "json" }
    early:wait_for("out", '"event":"step_started"[^\n]*"step":"wait"')
    local running = json(c.n2, 0, "trace", id)
    assert.are.same({ "running", "succeeded", "running", "pending" }, { running.status,
      running.steps[1].status, running.steps[2].status, running.steps[3].status })
    local why = command(c.n2, 0, "why", id).out
    assert.is_truthy(why:find("1 step runs now: wait (b.hold on n2, for ", 1, true), why)
    local late = c.n2:spawn { "trace", id, "--follow", "-o", "json" }
    late:wait_for("out", '"step":"wait"')
    touch(path .. ".go")
    local first, second = early:wait(), late:wait()
    local third = command(c.n1, 0, "trace", id, "--follow", "-o", "json")
    assert.are.same({ 0, 0 }, { first.code, second.code }, first.err .. second.err)
    local events = lines_of(first.out)
    for i, event in ipairs(events) do assert.are.equal(i, event.seq) end
    assert.are.same({ "run_started", "run_finished" }, { events[1].event, events[#events].event })
    assert.are.same(events, lines_of(second.out))
    assert.are.same(events, lines_of(third.out))
  end)

  it("sends a watcher nothing between its events", function()
    if node.run("strace", { "-V" }).code ~= 0 then return pending("there is no strace") end
    if os.getenv "MPREG_SANITIZED" then
      return pending("a process that is traced cannot look for leaks when it ends")
    end
    local path, log = c:path(), c:path()
    local id = begin(held(path))
    cluster.await_lines(path)
    local watcher = c.n3:spawn { "trace", id, "--follow", "-o", "json" }
    watcher:wait_for("out", '"step":"wait"')
    local function traced(pid, file)
      local p = node.spawn("strace", { "-f", "-o", file, "-e", "trace=read,readv,recvfrom,recvmsg,"
        .. "write,writev,sendto,sendmsg", "-p", pid })
      p:wait_for("err", "(attached)")
      return p
    end
    local p = traced(watcher.pid, log)
    local timer, is_over = uv.new_timer(), false
    timer:start(QUIET_MS, 0, function() is_over = true end)
    node.eventually(function() return is_over end, "silence", 10)
    timer:close()
    assert.are.same({}, cluster.lines(log))
    touch(path .. ".go")
    assert.are.equal(0, watcher:wait().code)
    p:wait()
    assert.is_true(#cluster.lines(log) > 0)
  end)

  it("is not slowed by a watcher that stops reading", function()
    local steps = { step("s1", "a.big", { 60000 }) }
    for i = 2, 200 do
      steps[i] = step("s" .. i, "a.big", { 60000 }, { after = { "s" .. i - 1 } })
    end
    local path = c:path()
    steps[201] = step("hold", "b.hold", { path })
    steps[1].after = { "hold" }
    local id = begin { name = "much", steps = steps, output = 1 }
    local watcher = c.n3:spawn { "trace", id, "--follow", "-o", "json" }
    watcher:wait_for("out", '("step":"hold")')
    watcher:kill "sigstop"
    touch(path .. ".go")
    assert.are.equal("succeeded", over(id).status)
    watcher:kill "sigcont"
    local r = watcher:wait()
    local events = lines_of(r.out)
    assert.are.same({ 0, #events, "run_finished" }, { r.code, events[#events].seq,
      events[#events].event })
  end)

  it("has 1,000 watchers", function()
    local path = c:path()
    local id = begin(held(path))
    cluster.await_lines(path)
    local clients, requests = {}, {}
    for i = 1, 10 do
      clients[i] = client.connect(c[i % 3 + 1])
      for _ = 1, WATCHERS / 10 do
        requests[#requests + 1] = clients[i]:ask("watch", { run = id })
      end
    end
    node.eventually(function()
      for _, request in ipairs(requests) do
        if #request.events < 5 then return false end
      end
      return true
    end, "what has happened so far, at all watchers", 30)
    touch(path .. ".go")
    node.eventually(function()
      for _, request in ipairs(requests) do
        if not request.done then return false end
      end
      return true
    end, "the end, at all watchers", 30)
    for _, request in ipairs(requests) do
      assert.are.equal("succeeded", request.result.status)
      for i, event in ipairs(request.events) do assert.are.equal(i, event.seq) end
      assert.are.same(requests[1].events, request.events)
    end
    for _, each in ipairs(clients) do each:close() end
  end)

  it("goes on when its watcher is interrupted", function()
    local path = c:path()
    local id = begin(held(path))
    cluster.await_lines(path)
    local watcher = c.n3:spawn { "trace", id, "--follow" }
    watcher:wait_for("out", "step_started +(wait)")
    watcher:kill "sigint"
    local r = watcher:wait()
    assert.are.equal(130, r.code, r.err)
    assert.is_truthy(r.err:find("the run goes on", 1, true), r.err)
    assert.are.equal("running", json(c.n1, 0, "trace", id).status)
    touch(path .. ".go")
    assert.are.equal("succeeded", over(id).status)
  end)

  --- Its steps: one that is done, two that append to files for ever, two that wait for these.
  local function ticking(one, two)
    return { name = "tick", steps = { step("done", "a.add", { 1, 2 }),
      step("near", "a.tick", { one }), step("far", "b.nest", { "d.tick", two }),
      step("after", "a.first", { ref "near" }), step("end", "a.first", { ref "after" }) } }
  end

  local OUTCOMES = { { "done", "done" }, { "near", "stopped" }, { "far", "stopped" },
    { "after", "never_started" }, { "end", "never_started" } }

  local function outcomes(receipts)
    local list = {}
    for i, receipt in ipairs(receipts) do list[i] = { receipt.name, receipt.outcome } end
    return list
  end

  --- Has stopped: the files do not grow any more.
  local function assert_still(...)
    local counts = {}
    for i, path in ipairs { ... } do counts[i] = #cluster.lines(path) end
    local timer, is_over = uv.new_timer(), false
    timer:start(200, 0, function() is_over = true end)
    node.eventually(function() return is_over end, "a while", 10)
    timer:close()
    for i, path in ipairs { ... } do assert.are.equal(counts[i], #cluster.lines(path)) end
  end

  it("is cancelled through the tree, with a receipt for each step", function()
    local one, two = c:path(), c:path()
    local id = begin(ticking(one, two))
    cluster.await_lines(one, 3)
    cluster.await_lines(two, 3)
    local answer = json(c.n3, 0, "cancel", id)
    assert.are.same({ id, "cancelled", OUTCOMES }, { answer.run_id, answer.status,
      outcomes(answer.steps) })
    assert_still(one, two)
    -- Twice is once; and it is on record.
    local again = json(c.n2, 0, "cancel", id)
    assert.are.equal("cancelled", again.status)
    assert.are.same({ "done", "never_started" }, { again.steps[1].outcome, again.steps[5].outcome })
    assert.are.same(OUTCOMES, outcomes(json(c.n2, 0, "trace", id).receipts))
    assert.is_truthy(command(c.n3, 0, "why", id).out:find("2 steps stopped, as their workers "
      .. "confirmed: near, far.", 1, true))
    c:await_idle()
  end)

  it("is cancelled by Ctrl-C, which says what became of its steps", function()
    local one, two = c:path(), c:path()
    local p = c.n1:spawn { "run", write(ticking(one, two)), "--follow" }
    cluster.await_lines(one, 3)
    cluster.await_lines(two, 3)
    p:kill "sigint"
    local r = p:wait()
    assert.are.equal(130, r.code, r.err)
    assert.is_truthy(r.err:find("stopped 2, done 1, never started 2\n", 1, true), r.err)
    assert_still(one, two)
    c:await_idle()
  end)

  it("that is over is left alone by a cancel", function()
    local id = begin(three_levels())
    over(id)
    local answer = json(c.n2, 0, "cancel", id)
    assert.are.same({ "succeeded", "done" }, { answer.status, answer.steps[1].outcome })
  end)

  it("gives one result whole, however large", function()
    local path = c:path()
    local graph = { name = "large", steps = { step("big", "b.big", { 300000 }),
      step("small", "a.first", { 7 }), step("wait", "b.hold", { path }) }, output = ref "small" }
    local id = begin(graph)
    cluster.await_lines(path)
    local r = command(c.n3, 3, "trace", id, "--result", "wait")
    assert.is_truthy(r.err:find("FAILED_PRECONDITION/NO_RESULT", 1, true), r.err)
    touch(path .. ".go")
    over(id)
    assert.are.equal("7\n", command(c.n3, 0, "trace", id, "--result", "small").out)
    r = c.n3:mpreg { "trace", id, "--result", "big", "-o", "json" }
    assert.is_true(r.code == 0 and #r.out > 300000 or r.code == 1 and
      decode(r.out).error.reason == "RESULT_LOST", r.out:sub(1, 500))
    command(c.n3, 2, "trace", id, "--result", "bigg")
  end)

  it("that nobody knows is told apart from what is no run at all", function()
    local id = begin(three_levels())
    over(id)
    local other = id:sub(1, -2) .. (id:sub(-1) == "0" and "1" or "0")
    for _, name in ipairs { "trace", "why", "cancel", "resume" } do
      local r = command(c.n2, 3, name, other)
      assert.is_truthy(r.err:find("NOT_FOUND/UNKNOWN_RUN", 1, true), r.err)
      for _, word in ipairs { "x", ("x"):rep(27), ("!"):rep(26), "" } do
        assert.is_truthy(command(c.n2, 2, name, word).err:find("INVALID_ARGUMENT/", 1, true))
      end
    end
    assert.is_truthy(command(c.n2, 3, "trace", other, "--follow").err:find("UNKNOWN_RUN", 1, true))
  end)

  it("that succeeded is resumed from a step, and else not", function()
    local path = c:path()
    local graph = { name = "marks", steps = { step("one", "a.alone", { path }),
      step("two", "b.alone", { path }, { after = { "one" } }), step("three", "a.add", { 1, 2 }) } }
    local id = begin(graph)
    over(id)
    local r = command(c.n2, 2, "resume", id)
    assert.is_truthy(r.err:find("FAILED_PRECONDITION/RUN_SUCCEEDED", 1, true), r.err)
    assert.are.equal(4, #cluster.lines(path))
    local run = json(c.n3, 0, "resume", id, "--from", "two")
    assert.are.same({ "succeeded", id, 0, 1, 0 }, { run.status, run.resumed_from,
      step_of(run, "one").attempts, step_of(run, "two").attempts, step_of(run, "three").attempts })
    assert.are.equal(6, #cluster.lines(path))
    assert.is_truthy(command(c.n2, 0, "trace", run.run_id).out:find("resumes " .. id, 1, true))
    command(c.n2, 2, "resume", id, "--from", "tow")
  end)

  it("that goes on is not resumed", function()
    local path = c:path()
    local id = begin(held(path))
    cluster.await_lines(path)
    local r = command(c.n2, 2, "resume", id)
    assert.is_truthy(r.err:find("FAILED_PRECONDITION/RUN_GOES_ON", 1, true), r.err)
    touch(path .. ".go")
    over(id)
  end)

  it("is drawn on a terminal while it is followed", function()
    local r = node.mpreg_on_terminal({ "run", write(three_levels()), "--follow", "--trace" },
      { env = { MPREG_NODE = c.n1.addr, TERM = "xterm" } })
    assert.are.equal(0, r.code, r.out)
    local plain = r.out:gsub("\27%[[%d;]*%a", "")
    assert.is_truthy(plain:find("three  [ █▏-▉]*%d of 3 steps"), r.out)
    assert.is_truthy(plain:find("step_succeeded   two  ", 1, true), r.out)
    assert.is_truthy(plain:find("= { 2, 3, 4, 5, 6 }", 1, true), r.out)
    assert.is_truthy(plain:find("level_completed  level 2  100.0%  new: three", 1, true), r.out)
    assert.is_truthy(plain:find("critical path: one → two → three", 1, true), r.out)
  end)
end)

describe("a run that failed", function()
  local c
  teardown(function()
    if c then c:close() end
    node.stop_all()
  end)

  local function module(version, total)
    return ([[
local mpreg = require "mpreg"
local shop = { _VERSION = "%s" }
local function mark(path)
  local file = assert(io.open(path, "a"))
  file:write(mpreg.node().name, "\n")
  file:close()
  return path
end
function shop.load(path) return mark(path) end
function shop.clean(path) return mark(path) end
function shop.price(path) return mark(path) end
function shop.total(path) %s end
return shop
]]):format(version, total)
  end

  local function write(name, text)
    local path = c.folder .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  it("at its fourth step is mended by a deploy, and resumed without the first three", function()
    c = cluster.start("mesh", 3)
    local path = c:path()
    local pipeline = write("orders.lua", [[
local mpreg = require "mpreg"
return mpreg.pipeline("orders", function(p, input)
  local load = p "load" { "shop.load", input.path }
  local clean = p "clean" { "shop.clean", load }
  local price = p "price" { "shop.price", clean }
  return p "total" { "shop.total", price }
end)
]])
    command(c.n1, 0, "deploy", write("shop.lua", module("1.0.0", 'error("no total of " .. #path)')))
    command(c.n1, 0, "deploy", pipeline)
    local input = codec.json_encode { path = path }
    local failed = json(c.n2, 1, "run", "orders", "--input", input)
    assert.are.equal("failed", failed.status)
    local why = command(c.n3, 0, "why", failed.run_id).out
    for _, words in ipairs { "The run failed because step total (shop.total) failed on n",
      "It was raised in shop.lua:12 (total) on n",
      "mpreg resume " .. failed.run_id .. " runs total, " } do
      assert.is_truthy(why:find(words, 1, true), why)
    end
    command(c.n1, 0, "deploy", write("shop.lua", module("1.1.0", "return 42")))
    local run = json(c.n3, 0, "resume", failed.run_id)
    assert.are.same({ "succeeded", 42, failed.run_id }, { run.status, run.output,
      run.resumed_from })
    assert.are.same({ 0, 0, 0, 1, "1.1.0" }, { run.steps[1].attempts, run.steps[2].attempts,
      run.steps[3].attempts, run.steps[4].attempts, run.steps[4].version })
    assert.are.equal(3, #cluster.lines(path))

    -- A pipeline of another shape cannot go on where that one ended.
    command(c.n1, 0, "deploy", write("shop.lua", module("1.2.0", "error('again')")))
    failed = json(c.n2, 1, "run", "orders", "--input", input)
    command(c.n1, 0, "deploy", "--force", write("orders.lua", [[
local mpreg = require "mpreg"
return mpreg.pipeline("orders", function(p, input)
  local load = p "load" { "shop.load", input.path }
  return p "total" { "shop.total", p "clean" { "shop.price", load } }
end)
]]))
    local r = command(c.n3, 2, "resume", failed.run_id)
    assert.is_truthy(r.err:find("FAILED_PRECONDITION/GRAPH_CHANGED", 1, true), r.err)
  end)
end)

describe("a run whose coordinator is killed", function()
  local c
  teardown(function()
    if c then c:close() end
    node.stop_all()
  end)

  it("is told to its watchers at once, and listed as lost after a restart", function()
    local data = assert(uv.fs_mkdtemp((uv.os_tmpdir() or "/tmp") .. "/mpreg-runs-XXXXXX"))
    c = cluster.start("mesh", { { modules = { "a" }, flags = { "--data", data } },
      { modules = { "b" } }, {} })
    local path, marks = c:path(), c:path()
    local graph = { name = "lost", steps = { step("first", "b.alone", { marks }),
      step("wait", "b.hold", { path }, { after = { "first" } }) } }
    local file = assert(io.open(path .. ".json", "w"))
    file:write((assert(codec.json_encode(graph))))
    file:close()
    local id = json(c.n1, 0, "run", path .. ".json", "--detach").run_id
    cluster.await_lines(path)
    local watcher = c.n3:spawn { "trace", id, "--follow", "-o", "json" }
    watcher:wait_for("out", '("step":"wait")')
    -- Records are written behind.
    node.eventually(function() return json(c.n3, 0, "trace", id).steps[1].status == "succeeded" end,
      "the first step")
    local timer, is_over = uv.new_timer(), false
    timer:start(1500, 0, function() is_over = true end)
    node.eventually(function() return is_over end, "the disk", 10)
    timer:close()
    local killed_at = uv.hrtime()
    c.n1:destroy()
    local r = watcher:wait()
    assert.is_true((uv.hrtime() - killed_at) / 1e6 < AT_ONCE_MS)
    local last
    for line in r.out:gmatch("[^\n]+") do last = decode(line) end
    assert.are.same({ 1, "UNAVAILABLE", "COORDINATOR_LOST" },
      { r.code, last.error.code, last.error.reason })
    r = command(c.n3, 3, "trace", id)
    assert.is_truthy(r.err:find("UNAVAILABLE/COORDINATOR_LOST", 1, true), r.err)

    c:client(1):close()
    c.clients[1] = nil
    c:restart(1, { 2, 3 })
    c:settle()
    local listed = json(c.n3, 0, "runs", "--status", "lost").runs
    assert.are.same({ id, "n1", 1 }, { listed[1].run_id, listed[1].node, listed[1].succeeded })
    local run = json(c.n3, 0, "trace", id)
    assert.are.same({ "lost", "succeeded" }, { run.status, step_of(run, "first").status })
    assert.is_truthy(command(c.n2, 0, "why", id).out:find("^The run was lost"))
    -- And it can go on.
    touch(path .. ".go")
    local resumed = json(c.n2, 0, "resume", id)
    assert.are.same({ "succeeded", 0, 1 }, { resumed.status, step_of(resumed, "first").attempts,
      step_of(resumed, "wait").attempts })
    assert.are.equal(2, #cluster.lines(marks))
    c:close()
    c = nil
    os.execute("rm -r " .. data)
  end)
end)
