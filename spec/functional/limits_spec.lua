-- The limits of a node: what is refused at each, with which reason, and that the node serves on.

local node = require "spec.support.node"
local scene = require "spec.support.scene"

describe("the limits of a node", function()
  local s

  before_each(function() s = scene.open() end)
  after_each(function() s:close() end)

  local function count(list)
    local codes = {}
    for _, r in ipairs(list) do
      local code = r.code or "a result"
      codes[code] = (codes[code] or 0) + 1
    end
    return codes
  end

  it("begin no more calls on a worker than --calls-begun-max", function()
    s:start(1, "--calls-begun-max", "3")
    local waiting = s:calls(10, "evil.wait", { 0.2, s.path })
    s:await_marks(3)
    s:expect("a result", s.c:call("mpreg.echo", { 1 }))
    -- Three at a time: the echo waited for the end of the first ones.
    assert.is_true(s:marks() >= 4)
    s:expect("a result", waiting)
    assert.are.equal(10, s:marks())
  end)

  it("admit nested calls past --calls-begun-max", function()
    s:start(1, "--calls-begun-max", "2")
    s:expect("a result", s:calls(20, "evil.nest", { 5 }, { timeout_ms = 10000 }))
    local all = s:expect("a result", s.c:call("evil.fan", { 50, "mpreg.echo", 1 }))
    assert.are.equal(50, all.result)
  end)

  it("queue no more than --calls-queued-max", function()
    s:start(1, "--calls-queued-max", "5", "--calls-begun-max", "1")
    local first = s.c:call("evil.wait", { 0.5, s.path })
    s:await_marks(1)
    local more = s:calls(12, "evil.wait", { 0, s.path })
    s.c:wait(more)
    assert.are.same({ ["a result"] = 5, ["RESOURCE_EXHAUSTED/QUEUE_FULL"] = 7 }, count(more))
    s:expect("a result", first)
    assert.are.equal(6, s:marks())
    s:expect("a result", s.c:call("mpreg.echo", { 1 }))
  end)

  it("let no more calls wait for a provider than --calls-queued-max", function()
    s:start(1, "--calls-queued-max", "5")
    local list = s:calls(8, "nowhere.fun", {}, { wait = true, timeout_ms = 300 })
    s.c:wait(list)
    assert.are.same({ ["DEADLINE_EXCEEDED/DEADLINE_EXCEEDED"] = 5,
      ["RESOURCE_EXHAUSTED/QUEUE_FULL"] = 3 }, count(list))
  end)

  it("nest calls no deeper than --call-depth-max", function()
    s:start(2, "--call-depth-max", "4")
    local request = s:expect("a result", s.c:call("evil.nest", { 4 }))
    assert.are.equal(4, request.result)
    request = s:expect("RESOURCE_EXHAUSTED/CALL_DEPTH", s.c:call("evil.nest", { 5 }))
    assert.truthy(request.error.message:find("--call-depth-max", 1, true))
    s:start(2)
    s:expect("a result", s.c:call("evil.nest", { 32 }))
    s:expect("RESOURCE_EXHAUSTED/CALL_DEPTH", s.c:call("evil.nest", { 1000 }))
  end)

  it("take and give no value over --value-max", function()
    s:start(2, "--value-max", "1M")
    local fits, over = ("x"):rep(1000000), ("x"):rep(1100000)
    local request = s:expect("a result", s.c:call("evil.length", { fits }))
    assert.are.equal(#fits, request.result)
    s:expect("RESOURCE_EXHAUSTED/TOO_LARGE", s.c:call("evil.length", { over }))
    request = s:expect("a result", s.c:call("evil.big", { #fits }))
    assert.are.equal(#fits, #request.result)
    s:expect("RESOURCE_EXHAUSTED/TOO_LARGE", s.c:call("evil.big", { #over }))
    -- Between functions the same holds.
    s:expect("a result", s.c:call("evil.pass_big", { #fits }))
    s:expect("RESOURCE_EXHAUSTED/TOO_LARGE", s.c:call("evil.pass_big", { #over }))
    s:expect("RESOURCE_EXHAUSTED/TOO_LARGE", s.c:call("evil.parent_of", { "evil.big", #over }))
    s:expect("a result", s.c:call("mpreg.echo", { 1 }))
  end)

  it("keep a function to its concurrency, in order", function()
    s:start(3)
    local list = {}
    for i = 1, 30 do list[i] = s.c:call("evil.alone", { s.path, i }, { timeout_ms = 20000 }) end
    s:expect("a result", list)
    local seen = {}
    for line in io.lines(s.path) do seen[#seen + 1] = tonumber(line) end
    for i = 1, 30 do assert.are.equal(i, seen[i]) end
  end)

  it("let others pass those that wait for their function's turn", function()
    s:start(2)
    local list = s:calls(20, "evil.alone", { s.path, "x", 0.05 }, { timeout_ms = 20000 })
    local echo = s:expect("a result", s.c:call("mpreg.echo", { 1 }))
    assert.is_true(echo.ms < 500 * scene.SLOW)
    s:expect("a result", list)
  end)

  it("free a function's turn when its call is lost", function()
    s:start(1)
    local list = s:calls(3, "evil.alone_crash", {}, { timeout_ms = 5000 })
    s:expect("UNAVAILABLE/WORKER_LOST", list)
    list = s:calls(2, "evil.alone_spin", {}, { timeout_ms = 100 })
    s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", list)
    -- The turn is free once the first one is gone.
    s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED",
      s.c:call("evil.alone_spin", { s.path }, { timeout_ms = 2000 }))
    assert.are.equal(1, s:marks())
  end)

  it("keep to the function's own timeout", function()
    s:start(1)
    local request = s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", s.c:call("evil.brief"))
    assert.is_true(request.ms >= 100 and request.ms < 1000 * scene.SLOW, request.ms)
    assert.truthy(request.error.message:find("100 ms", 1, true), request.error.message)
    -- Its timeout is one attempt's: another may follow.
    s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED",
      s.c:call("evil.brief", { s.path }, { retries = 2, timeout_ms = 10000 }))
    assert.are.equal(3, s:marks())
  end)

  it("keep to --call-timeout where the caller gives none", function()
    s:start(1, "--call-timeout", "200ms")
    local request = s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", s.c:call("evil.wait", { 100 }))
    assert.is_true(request.ms >= 200 and request.ms < 2000 * scene.SLOW, request.ms)
  end)

  it("replace workers whose memory is used up, again and again", function()
    s:start(2, "--worker-memory", "64M")
    for _ = 1, 6 do
      s:expect("RESOURCE_EXHAUSTED/WORKER_MEMORY", s.c:call("evil.eat_tables"))
      s:expect("a result", s:calls(5, "mpreg.echo", { 1 }))
    end
    node.eventually(function() return #s.n:workers() == 2 end, "two workers")
  end)

  it("let neighbours of a call that used up the memory finish", function()
    s:start(1, "--worker-memory", "64M")
    local waiting = s:calls(3, "evil.wait", { 0.5, s.path })
    s:await_marks(3)
    s:expect("RESOURCE_EXHAUSTED/WORKER_MEMORY", s.c:call("evil.eat_tables"))
    s:expect("a result", s.c:call("mpreg.echo", { 1 }))
    s:expect("a result", waiting)
    assert.are.equal(3, s:marks())
  end)
end)
