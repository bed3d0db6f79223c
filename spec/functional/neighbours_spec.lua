-- A function misbehaves: what becomes of the calls that share its worker, wait behind it, called it
-- or were called by it, and of everybody else.

local scene = require "spec.support.scene"

describe("the neighbours of a call that misbehaves", function()
  local s

  before_each(function() s = scene.open() end)
  after_each(function() s:close() end)

  --- Keeps the CPU of a worker for so long; returns when it has it.
  local function hold(seconds)
    local before = s:marks ".held"
    local request = s.c:call("evil.hold", { seconds, s.path .. ".held" })
    s:await_marks(before + 1, ".held")
    return request
  end

  describe("that had not begun", function()
    it("run elsewhere while it computes", function()
      s:start(2)
      local long = s.c:call("evil.hold", { 1 })
      local echoes = s:calls(500, "mpreg.echo", { 1 }, { timeout_ms = 5000 })
      s:expect("a result", echoes)
      for _, echo in ipairs(echoes) do assert.is_true(echo.ms < 500 * scene.SLOW) end
      assert.is_falsy(long.done and scene.SLOW == 1)
      s:expect("a result", long)
    end)

    it("wait for the only worker, and then run", function()
      s:start(1)
      hold(0.3)
      s:expect("a result", s:calls(500, "mpreg.echo", { 1 }, { timeout_ms = 20000 }))
    end)

    it("move when it is killed at its deadline, and run once each", function()
      s:start(1)
      local evil = s.c:call("evil.spin", {}, { timeout_ms = 100 })
      local behind = s:calls(200, "evil.wait", { 0, s.path }, { timeout_ms = 20000 })
      s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", evil)
      s:expect("a result", behind)
      assert.are.equal(200, s:marks())
    end)

    it("move when it crashes, and run once each", function()
      s:start(1)
      local evil = s.c:call("evil.segfault")
      local behind = s:calls(200, "evil.wait", { 0, s.path }, { timeout_ms = 20000 })
      s:expect("UNAVAILABLE/WORKER_LOST", evil)
      s:expect("a result", behind)
      assert.are.equal(200, s:marks())
    end)

    it("move to a worker that has become free", function()
      s:start(2)
      -- Both workers compute; what waits behind the longer one goes to the other when it is free.
      local long = hold(1)
      local short = hold(0.1)
      local echoes = s:calls(50, "mpreg.echo", { 1 }, { timeout_ms = 5000 })
      s:expect("a result", echoes)
      s:expect("a result", short)
      assert.is_falsy(long.done and scene.SLOW == 1)
      s:expect("a result", long)
    end)
  end)

  describe("that had begun and waited", function()
    it("end as WORKER_LOST, with a hint", function()
      s:start(1)
      local waiting = s:calls(5, "evil.wait", { 3, s.path })
      s:await_marks(5)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault"))
      s:expect("UNAVAILABLE/WORKER_LOST", waiting)
      local err = waiting[1].error
      assert.are.equal("evil.wait", err.fun)
      assert.truthy(err.message:find("evil.segfault", 1, true), err.message)
      assert.truthy(err.hint:find("idempotent", 1, true))
      assert.are.equal(5, s:marks())
    end)

    it("run again, once, if they are idempotent", function()
      s:start(1)
      local waiting = s:calls(5, "evil.wait_idempotent", { 0.3, s.path })
      s:await_marks(5)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault"))
      s:expect("a result", waiting)
      assert.are.equal(10, s:marks())
    end)

    it("do not run a third time", function()
      s:start(1)
      local waiting = s.c:call("evil.wait_idempotent", { 20, s.path })
      s:await_marks(1)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault"))
      s:await_marks(2)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault"))
      s:expect("UNAVAILABLE/WORKER_LOST", waiting)
      assert.are.equal(2, s:marks())
    end)

    it("run again as often as their caller allows", function()
      s:start(1)
      local waiting = s.c:call("evil.wait", { 0.3, s.path }, { retries = 3 })
      s:await_marks(1)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault"))
      s:expect("a result", waiting)
      assert.are.equal(2, s:marks())
    end)

    it("finish if the call at its deadline ends in time", function()
      s:start(1)
      local waiting = s.c:call("evil.wait", { 0.4, s.path })
      s:await_marks(1)
      s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED",
        s.c:call("evil.hold", { 0.2 }, { timeout_ms = 100 }))
      s:expect("a result", waiting)
    end)
  end)

  it("on other workers are not touched", function()
    s:start(2)
    local waiting = s.c:call("evil.wait", { 1, s.path })
    s:await_marks(1)
    local long = hold(0.8) -- on the same worker, so the evil ones go to the other
    for _ = 1, 2 do s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault")) end
    s:expect("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED",
      s.c:call("evil.spin", {}, { timeout_ms = 50 }))
    s:expect("a result", { waiting, long })
    assert.are.equal(1, s:marks())
  end)

  describe("in the tree of calls", function()
    it("hear of a child that crashed", function()
      s:start(2)
      local err = s:expect("UNAVAILABLE/WORKER_LOST",
        s.c:call("evil.parent_of", { "evil.segfault" })).error
      -- The parent had its own worker and raised the child's error, or was the child's neighbour.
      assert.truthy((err.fun .. err.message):find("evil.segfault", 1, true), err.message)
    end)

    it("live on if the child ran elsewhere", function()
      s:start(2)
      -- The first worker computes while the parent begins, so it begins on the other one; the child
      -- goes to the first, which is free again by then.
      hold(0.2)
      local parent = s.c:call("evil.try_later", { 0.5, "evil.segfault", s.path })
      s:expect("a result", parent)
      assert.are.equal("UNAVAILABLE/WORKER_LOST", parent.result)
      assert.are.equal(1, s:marks())
    end)

    it("take a child along whose parent is cancelled", function()
      s:start(2)
      local parent = s.c:call("evil.parent_of",
        { "evil.parent_of", "evil.wait_marked", 20, s.path })
      s:await_marks(1)
      s.c:cancel(parent)
      s:expect("CANCELLED/CANCELLED", parent)
      s:await_marks(1, ".ended")
    end)

    it("take a child along whose parent died", function()
      s:start(2)
      hold(0.2)
      local parent = s.c:call("evil.try_later", { 0.5, "evil.wait_marked", 20, s.path })
      s:await_marks(1)
      -- The parent waits on the second worker; whoever crashes there takes it along.
      local long = hold(0.5)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault"))
      s:expect("UNAVAILABLE/WORKER_LOST", parent)
      s:await_marks(1, ".ended")
      s:expect("a result", long)
    end)

    it("take children along when the client goes away", function()
      s:start(2)
      s.c:call("evil.parent_of", { "evil.wait_marked", 20, s.path })
      s:await_marks(1)
      s:reconnect()
      s:await_marks(1, ".ended")
    end)

    it("find a worker for a child although the parent was expensive", function()
      s:start(1)
      for _ = 1, 3 do
        local parent = s.c:call("evil.hold_and_call", { 0.02, "mpreg.echo", 7 },
          { timeout_ms = 5000 })
        s:expect("a result", parent)
        assert.are.equal(7, parent.result)
      end
    end)

    it("leave a worker to others while they only wait", function()
      s:start(1)
      for _ = 1, 3 do
        s:expect("a result", s.c:call("evil.hold_and_wait", { 0.02, 0 }))
      end
      local waiting = s.c:call("evil.hold_and_wait", { 0.02, 2 })
      s:expect("a result", s:calls(10, "mpreg.echo", { 1 }, { timeout_ms = 1000 * scene.SLOW }))
      assert.is_falsy(waiting.done and scene.SLOW == 1)
      s:expect("a result", waiting)
    end)
  end)

  describe("of the same function", function()
    it("do not run a suspect again, though it is idempotent", function()
      s:start(2)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.segfault_idempotent", { s.path }))
      assert.are.equal(1, s:marks())
    end)

    it("run a suspect again if the caller's retries say so", function()
      s:start(2)
      os.remove(s.path)
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.crash_once", { s.path }))
      os.remove(s.path)
      local request = s:expect("a result", s.c:call("evil.crash_once", { s.path }, { retries = 1 }))
      assert.are.equal("second time", request.result)
      assert.are.equal(2, s:marks())
    end)

    it("are refused after five crashes in a minute, others are not", function()
      s:start(2)
      for _ = 1, 5 do s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.crash_a")) end
      local request = s:expect("RESOURCE_EXHAUSTED/CRASH_LOOP", s.c:call("evil.crash_a"))
      assert.truthy(request.error.message:find("5 worker processes", 1, true))
      s:expect("a result", s.c:call("mpreg.echo", { 1 }))
      s:expect("UNAVAILABLE/WORKER_LOST", s.c:call("evil.crash_b"))
      local refused = {}
      for _, f in ipairs(s.c:query("functions").functions) do refused[f.name] = f.refused_ms end
      assert.is_true(refused["evil.crash_a"] > 5000 and refused["evil.crash_a"] <= 10000)
      refused["evil.crash_a"] = nil
      assert.are.same({}, refused)
    end)

    it("are refused although they were queued before", function()
      s:start(1)
      local all = s:calls(50, "evil.crash_a", {}, { timeout_ms = 20000 })
      s.c:wait(all)
      local codes = {}
      for _, r in ipairs(all) do
        local code = r.code or "a result"
        codes[code] = (codes[code] or 0) + 1
      end
      assert.are.same({ ["UNAVAILABLE/WORKER_LOST"] = 5, ["RESOURCE_EXHAUSTED/CRASH_LOOP"] = 45 },
        codes)
    end)
  end)
end)
