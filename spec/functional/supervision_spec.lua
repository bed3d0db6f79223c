-- What happens to whom when a function misbehaves: its caller, those that share its worker, those
-- that wait behind it, everybody else. Real nodes, one client connection for many requests.

local node = require "spec.support.node"
local scene = require "spec.support.scene"

describe("supervision of one call", function()
  local s

  before_each(function()
    s = scene.open()
    s:start(1)
  end)
  after_each(function() s:close() end)

  --- The call fails so, in time, and right after it the node's only worker serves again.
  local function fails(code, fun, timeout_ms, args)
    timeout_ms = timeout_ms or 5000
    local request = s.c:call(fun, args, { timeout_ms = timeout_ms })
    s:expect(code, s:answered_within(scene.ANSWER_MS, request, timeout_ms))
    local echo = s.c:call("mpreg.echo", { fun }, { timeout_ms = 5000 })
    s:expect("a result", s:answered_within(scene.SERVING_MS, echo))
    return request.error
  end

  it("answers the caller of a function that writes to address 0", function()
    local err = fails("UNAVAILABLE/WORKER_LOST", "evil.segfault")
    assert.are.equal("evil.segfault", err.fun)
    assert.is_true(scene.tells_crash(err.message))
  end)

  it("answers the caller of a function that ends the process", function()
    assert.truthy(fails("UNAVAILABLE/WORKER_LOST", "evil.exit_c").message:find "exit status 0")
    assert.truthy(fails("UNAVAILABLE/WORKER_LOST", "evil.exit_c_bad").message
      :find "exit status 3")
    assert.truthy(fails("UNAVAILABLE/WORKER_LOST", "evil.abort").message:find "SIGABRT")
    assert.truthy(fails("UNAVAILABLE/WORKER_LOST", "evil.kill_self").message:find "SIGKILL")
  end)

  it("refuses os.exit and keeps the worker", function()
    local before = s.n:workers()
    fails("FAILED_PRECONDITION/EXIT_REFUSED", "evil.os_exit")
    assert.are.same(before, s.n:workers())
  end)

  for _, case in ipairs {
    { "a compiled endless loop", "evil.spin" },
    { "a pattern that backtracks for hours", "evil.pattern" },
    { "an endless loop around pcall around an endless loop", "evil.pcall_spin" },
    { "a loop that swallows its cancellation while it sleeps", "evil.pcall_sleep" },
    { "a loop that swallows its cancellation while it calls", "evil.pcall_call" },
    { "a loop in an error handler", "evil.xpcall_handler" },
  } do
    it("answers at the deadline of " .. case[1], function()
      local before = s.n:workers()[1]
      local err = fails("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", case[2], 200)
      assert.are.equal(case[2], err.fun)
      node.eventually(function()
        local now = s.n:workers()
        return #now == 1 and now[1] ~= before
      end, "the end of the worker that computes", 2 * scene.SLOW)
    end)
  end

  for _, case in ipairs {
    { "tables", "evil.eat_tables" }, { "strings", "evil.eat_strings" },
    { "one string", "evil.eat_one_string", true },
    { "FFI objects", "evil.eat_ffi" },
  } do
    it("ends a call whose " .. case[1] .. " reach the limit, and replaces the worker", function()
      s:start(1, "--worker-memory", "64M")
      local before = s.n:workers()[1]
      fails("RESOURCE_EXHAUSTED/WORKER_MEMORY", case[2], 20000)
      if case[3] then return end -- collected, the worker has memory enough
      node.eventually(function()
        local now = s.n:workers()
        return #now == 1 and now[1] ~= before
      end, "another worker", 5)
    end)
  end

  it("bounds memory that the function takes from the C library", function()
    if scene.SLOW ~= 1 then return end -- there the limit would count shadow memory: there is none
    s:start(1, "--worker-memory", "64M")
    local request = s.c:wait(s.c:call("evil.eat_malloc", {}, { timeout_ms = 20000 }))
    assert.are.equal("RESOURCE_EXHAUSTED/NO_MALLOC", request.code)
    assert.are.equal(1, s.c:result(s.c:call("mpreg.echo", { 1 })))
  end)

  it("ends one that swallows the refusal of memory at its deadline", function()
    s:start(1, "--worker-memory", "64M")
    fails("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", "evil.eat_and_pcall", 700)
  end)
end)
