-- What becomes of calls, runs and results when nodes die, drain or are back, told by those that
-- remain.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

local MIB = 1024 * 1024

local function ref(path) return { ["$ref"] = path } end

describe("when a node", function()
  local c

  -- n1 has no functions: it coordinates. n2 and n3 are alike, n4 is another one.
  before_each(function()
    c = cluster.start("star", { {}, { modules = { "twin" } }, { modules = { "twin" } },
      { modules = { "w" } } })
  end)
  after_each(function()
    c:close()
    node.stop_all()
  end)

  --- The place of the node that has written the last line of a file.
  local function place_in(path, count)
    return tonumber(cluster.await_lines(path, count)[count or 1]:match "%d+")
  end

  local function graph_file(graph)
    local path = c:path() .. ".json"
    local file = assert(io.open(path, "w"))
    file:write((assert(codec.json_encode(graph))))
    file:close()
    return path
  end

  --- A run that makes a large value with `fun`, waits on n4, and uses it there. Gives the request,
  --- the file on which it waits, and the place of the holder.
  local function run_with_held(fun)
    local path = c:path()
    local request = c:client(1):run({ steps = {
      { name = "big", call = fun, args = { MIB } },
      { name = "wait", call = "w.hold", args = { path }, after = { "big" } },
      { name = "use", call = "w.length", args = { ref "big" }, after = { "wait" } },
    } }, { follow = true })
    cluster.await_lines(path)
    for i = 2, 3 do
      if c:client(i):query("status").held.count > 0 then return request, path, i end
    end
    error "nobody holds the value"
  end

  describe("is killed,", function()
    it("a call that had begun there fails, once, saying so", function()
      local path = c:path()
      local command = c[1]:spawn { "call", "twin.hold", path }
      local place = place_in(path)
      c:kill(place)
      local r = command:wait()
      assert.are.equal(1, r.code)
      assert.truthy(r.err:find("error: UNAVAILABLE/NODE_LOST: ", 1, true), r.err)
      assert.truthy(r.err:find("n" .. place, 1, true), r.err)
      c:await_idle()
      assert.are.equal(1, #cluster.lines(path))
    end)

    it("a call that had begun there runs elsewhere if it may", function()
      for _, case in ipairs { { "twin.hold_idempotent" }, { "twin.hold", { retries = 1 } } } do
        local path = c:path()
        local request = c:client(1):call(case[1], { path }, case[2])
        local place = place_in(path)
        c:kill(place)
        local other = place_in(path, 2)
        assert.are.equal(5 - place, other)
        cluster.let_go(path)
        assert.are.equal("n" .. other, c:client(1):result(request))
        assert.are.equal(2, #cluster.lines(path))
        c:close()
        c = cluster.start("star", { {}, { modules = { "twin" } }, { modules = { "twin" } } })
      end
    end)

    it("calls that were sent there may have begun: they fail, and none runs twice", function()
      local path = c:path()
      local requests = {}
      for i = 1, 8 do requests[i] = c:client(1):call("twin.hold_alone", { path }) end
      cluster.await_lines(path, 2)
      c:kill(2)
      cluster.let_go(path)
      c:client(1):wait(requests)
      local lost = 0
      for _, r in ipairs(requests) do
        if r.error then
          assert.are.equal("UNAVAILABLE/NODE_LOST", r.code)
          lost = lost + 1
        else
          assert.are.equal("n3", r.result)
        end
      end
      local lines = { n2 = 0, n3 = 0 }
      for _, line in ipairs(cluster.lines(path)) do lines[line] = lines[line] + 1 end
      assert.is_true(lost >= 1 and lost < 8, lost)
      assert.are.same({ n2 = 1, n3 = 8 - lost }, lines)
    end)

    it("idempotent calls that wait there all run elsewhere", function()
      local path = c:path()
      local requests = {}
      for i = 1, 50 do requests[i] = c:client(1):call("twin.hold_idempotent", { path }) end
      cluster.await_lines(path, 50)
      c:kill(2)
      cluster.let_go(path)
      c:client(1):wait(requests)
      for _, r in ipairs(requests) do assert.are.equal("n3", r.result, r.code) end
    end)

    it("a step that had begun there fails its run", function()
      local path = c:path()
      local graph = graph_file { steps = {
        { name = "first", call = "w.range", args = { 3 } },
        { name = "hold", call = "twin.hold", args = { path }, after = { "first" } },
        { name = "behind", call = "w.first", args = { ref "hold" } },
      } }
      local command = c[1]:spawn { "run", graph, "-o", "json" }
      local place = place_in(path)
      c:kill(place)
      local r = command:wait()
      assert.are.equal(1, r.code, r.err)
      local run = codec.json_decode(r.out)
      assert.are.same({ "failed", "UNAVAILABLE", "NODE_LOST", "hold" },
        { run.status, run.error.code, run.error.reason, run.error.step })
      assert.are.same({ "succeeded", "failed", "skipped" },
        { run.steps[1].status, run.steps[2].status, run.steps[3].status })
      assert.are.same({ 1, 2, 3 }, { unpack(run.results.first) })
      c:await_idle()
      assert.are.equal(1, #cluster.lines(path))
    end)

    it("a step that had begun there and is idempotent, or has retries, runs elsewhere", function()
      for _, more in ipairs { { call = "twin.hold_idempotent" }, { call = "twin.hold",
        retries = 1 } } do
        local path = c:path()
        local request = c:client(1):run { steps = {
          { name = "hold", call = more.call, retries = more.retries, args = { path } },
          { name = "behind", call = "w.first", args = { ref "hold" } },
        } }
        local place = place_in(path)
        c:kill(place)
        local other = place_in(path, 2)
        cluster.let_go(path)
        local run = c:client(1):result(request)
        assert.are.equal("succeeded", run.status)
        assert.are.equal("n" .. other, run.output.behind)
        assert.are.equal("n" .. other, run.steps[1].node)
        assert.are.equal(2, #cluster.lines(path))
        c:close()
        c = cluster.start("star", { {}, { modules = { "twin" } }, { modules = { "twin" } },
          { modules = { "w" } } })
      end
    end)

    it("the elements of an `each` that are idempotent run elsewhere", function()
      local path = c:path()
      local request = c:client(1):run { steps = { { name = "all", call = "twin.hold_idempotent",
        each = { 1, 2, 3, 4, 5, 6 }, concurrency = 6, args = { path } } } }
      cluster.await_lines(path, 6)
      c:kill(3)
      cluster.let_go(path)
      local run = c:client(1):result(request)
      assert.are.equal("succeeded", run.status)
      for i = 1, 6 do assert.are.equal("n2", run.output.all[i]) end
    end)

    it("a result that it held is lost, and its run says so", function()
      local request, path, holder = run_with_held "twin.big"
      c:kill(holder)
      c:await_state(1, holder, "dead")
      cluster.let_go(path)
      local run = c:client(1):result(request)
      assert.are.same({ "failed", "DATA_LOSS", "RESULT_LOST" },
        { run.status, run.error.code, run.error.reason })
      assert.are.equal("succeeded", run.steps[2].status)
      c:await_nothing_held()
    end)

    it("a result that it held is made again if its step is idempotent", function()
      local request, path, holder = run_with_held "twin.big_idempotent"
      c:kill(holder)
      cluster.let_go(path)
      local run = c:client(1):result(request)
      assert.are.equal("succeeded", run.status, codec.json_encode(run.error))
      assert.are.equal(MIB, run.output.use)
      assert.are.equal("n" .. 5 - holder, run.steps[1].node)
      c:await_nothing_held()
    end)

    it("what it coordinated ends everywhere, and its callers hear at once", function()
      local _, path = run_with_held "twin.big"
      local marks = #cluster.lines(path)
      local file = graph_file { steps = { { name = "s", call = "w.hold", args = { path } } } }
      local run = c[1]:spawn { "run", file }
      local call = c[1]:spawn { "call", "w.hold", path }
      cluster.await_lines(path, marks + 2)
      local to_n1 = c.clients[1]
      c.clients[1] = nil
      c:kill(1)
      node.eventually(function() return to_n1.is_closed end, "the end of the connection")
      to_n1:close()
      for _, command in ipairs { run, call } do
        local r = command:wait()
        assert.are.equal(1, r.code)
        assert.truthy(r.err:find("UNAVAILABLE/CONNECTION_LOST", 1, true), r.err)
      end
      c:await_idle()
      c:await_nothing_held()
      assert.are.equal("n4", c:result(2, "w.where"))
    end)

    it("what was left to it with --detach ends everywhere too", function()
      local path = c:path()
      local file = graph_file { steps = { { name = "s", call = "w.hold", args = { path } } } }
      local r = c[1]:mpreg { "run", file, "--detach" }
      assert.are.equal(0, r.code, r.err)
      cluster.await_lines(path)
      assert.are.equal(1, c:client(4):query("status").workers[1].begun)
      c:kill(1)
      c:await_idle()
      cluster.let_go(path)
    end)
  end)

  it("loses a worker, that is told with the node's name, and idempotent calls go on", function()
    for _, case in ipairs { { "w.hold", "UNAVAILABLE/WORKER_LOST" }, { "w.hold_idempotent" } } do
      local path = c:path()
      local request = c:client(1):call(case[1], { path })
      cluster.await_lines(path)
      assert(uv.kill(c[4]:workers()[1], "sigkill"))
      if not case[2] then cluster.await_lines(path, 2) end
      cluster.let_go(path)
      c:client(1):wait(request)
      assert.are.equal(case[2], request.code)
      if case[2] then assert.are.equal("n4", request.error.node) end
    end
  end)

  it("is told to stop, what it runs finishes, and new calls go elsewhere", function()
    local path = c:path()
    local request = c:client(1):call("twin.hold", { path })
    local place = place_in(path)
    local direct = c:client(place)
    c[place]:tell_to_stop()
    node.eventually(function() return direct.is_going_away end, "the goodbye")
    local others = {}
    for i = 1, 50 do others[i] = c:client(1):call("twin.where") end
    c:client(1):wait(others)
    for _, r in ipairs(others) do assert.are.equal("n" .. 5 - place, r.result, r.code) end
    cluster.let_go(path)
    assert.are.equal("n" .. place, c:client(1):result(request))
    c[place]:stop()
    c:await_state(1, place, "left")
  end)

  it("stands still, a call there ends at its deadline, and it is alive again after", function()
    assert.are.equal("n4", c:result(1, "w.where"))
    c[4]:kill "sigstop"
    local r = c:answer(1, "w.where", {}, { timeout_ms = 300 })
    assert.are.equal("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", r.code)
    c:await_state(1, 4, "dead")
    assert.are.equal("NOT_FOUND/UNKNOWN_FUNCTION", c:answer(1, "w.where").code)
    local waiting = c:client(1):call("w.where", {}, { wait = true, timeout_ms = 60000 })
    c[4]:kill "sigcont"
    assert.are.equal("n4", c:client(1):result(waiting))
    c:see_all()
  end)
end)

describe("a line of three", function()
  local c
  before_each(function()
    c = cluster.start("line", { { modules = { "a" } }, { modules = { "b" } },
      { modules = { "c" } } })
  end)
  after_each(function()
    c:close()
    node.stop_all()
  end)

  local graph = { steps = {
    { name = "x", call = "a.range", args = { 4 } },
    { name = "y", call = "c.shift", args = { ref "x", 1 } },
    { name = "z", call = "a.sum", args = { ref "y" } },
  } }

  it("goes on when its middle is killed, and has it again when it is back", function()
    local function check()
      for _, i in ipairs { 1, 3 } do
        assert.are.equal("n1", c:result(i, "a.where"))
        assert.are.equal("n3", c:result(i, "c.where"))
        assert.are.equal(14, c:run(i, graph).output.z)
      end
    end
    check()
    c:kill(2)
    check() -- also before they know
    c:await_state(1, 2, "dead")
    c:await_state(3, 2, "dead")
    check()
    assert.are.equal("NOT_FOUND/UNKNOWN_FUNCTION", c:answer(1, "b.where").code)
    c:restart(2, { 1 })
    local waiting = c:client(3):call("b.where", {}, { wait = true, timeout_ms = 30000 })
    assert.are.equal("n2", c:client(3):result(waiting))
    c:await_state(1, 2, "alive")
    check()
  end)
end)
