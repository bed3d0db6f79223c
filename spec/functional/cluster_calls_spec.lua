-- Calls from one node to functions of another: who gets them, what errors look like from there, and
-- that deadlines and cancellation reach them.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

local TRIES = 15 -- a machine may be unequal to its processors for seconds

--- Keeps so many calls outstanding until there were so many; gives the results by how often each
--- came.
local function drive(c, i, count, outstanding, fun, args)
  local connection = c:client(i)
  local tally, open, sent = {}, {}, 0
  while sent < count or open[1] do
    while sent < count and #open < outstanding do
      sent = sent + 1
      open[#open + 1] = connection:call(fun, args, { timeout_ms = 60000 })
    end
    node.eventually(function()
      for k = 1, #open do
        if open[k].done then return true end
      end
      return false
    end, "an answer", 60)
    for k = #open, 1, -1 do
      local request = open[k]
      if request.done then
        if request.error then error(request.code .. ": " .. tostring(request.error.message)) end
        tally[request.result] = (tally[request.result] or 0) + 1
        open[k] = open[#open]
        open[#open] = nil
      end
    end
  end
  return tally
end

describe("a call over a cluster", function()
  local c

  setup(function()
    c = cluster.start("line", { { modules = { "a" } }, { modules = { "b" } },
      { modules = { "c" } } })
  end)
  teardown(function()
    c:close()
    node.stop_all()
  end)

  it("goes from any node to any function", function()
    for i = 1, 3 do
      for k, module in ipairs { "a", "b", "c" } do
        local requests = {}
        for n = 1, 50 do requests[n] = c:client(i):call(module .. ".add", { n, 1000 * k }) end
        c:client(i):wait(requests)
        for n = 1, 50 do assert.are.equal(n + 1000 * k, requests[n].result, requests[n].code) end
      end
    end
  end)

  it("carries every kind of value, there and back", function()
    local values = { true, false, 0, -1, 1.5, 2 ^ 53, 1 / 0, "", "text", "\255\0bytes",
      codec.array {}, { a = { b = { codec.null, "x" } } }, ("y"):rep(1000000) }
    for _, value in ipairs(values) do
      assert.are.same(value, c:result(1, "c.first", { value }))
    end
  end)

  it("nests over three nodes", function()
    assert.are.equal("n3", c:result(1, "b.nest", { "a.nest", "c.where" }))
    assert.are.equal(7, c:result(3, "a.nest", { "b.nest", "c.nest", "a.add", 3, 4 }))
  end)

  it("says where it failed, and is an error", function()
    for i = 1, 3 do
      local r = c[i]:mpreg { "call", "c.fail", "oops", "-o", "json" }
      assert.are.equal(1, r.code)
      local err = codec.json_decode(r.out).error
      assert.are.equal("UNKNOWN/FUNCTION_ERROR", err.code .. "/" .. err.reason)
      assert.are.same({ "oops", "n3", "c.fail", "1.0.0" },
        { err.message, err.node, err.fun, err.version })
      assert.are.equal(1, #err.traceback)
      local frame = err.traceback[1]
      assert.are.same({ "n3", "c.lua", "fail" }, { frame.node, frame.file, frame["function"] })
      assert.is_true(frame.line > 0)
    end
  end)

  it("has a traceback across three nodes, innermost first", function()
    local r = c[1]:mpreg { "call", "b.nest", "a.nest", "c.fail", "oops" }
    assert.are.equal(1, r.code)
    local frames = {}
    for frame in r.err:gmatch "\n  at ([^\n]*)" do frames[#frames + 1] = frame:gsub(":%d+", "") end
    assert.are.same({ "c.lua in fail (n3)", "a.lua in nest (n1)", "b.lua in nest (n2)" }, frames)
    assert.truthy(r.err:find("error: UNKNOWN/FUNCTION_ERROR: oops\n  in c.fail 1.0.0, on n3\n", 1,
      true))
  end)

  it("keeps the function's own code, reason and message", function()
    for _, code in ipairs { "NOT_FOUND", "PERMISSION_DENIED", "DATA_LOSS", "DEADLINE_EXCEEDED",
      "CANCELLED", "UNAVAILABLE" } do
      local r = c:answer(1, "c.fail_as", { code, "NO_ROW", "no such row" })
      assert.are.equal(code .. "/NO_ROW", r.code)
      assert.are.equal("no such row", r.error.message)
      assert.are.equal("n3", r.error.node)
    end
    assert.are.equal(1, c[2]:mpreg({ "call", "c.fail_as", "NOT_FOUND", "NO_ROW", "x" }).code)
  end)

  it("that computes past its deadline is answered then, and its worker is replaced", function()
    local path = c:path()
    local before = c[3]:workers()[1]
    local r = c[1]:mpreg { "call", "c.spin", path, "-t", "200ms" }
    assert.are.equal(4, r.code)
    assert.truthy(r.err:find("error: DEADLINE_EXCEEDED/DEADLINE_EXCEEDED: c.spin ", 1, true))
    assert.is_true(r.ms < 5000 * cluster.SLOW, r.ms)
    assert.are.same({ "n3" }, cluster.lines(path))
    node.eventually(function()
      local now = c[3]:workers()
      return #now == 1 and now[1] ~= before
    end, "another worker on n3", 20)
    assert.are.equal("n3", c:result(1, "c.where"))
    assert.is_nil(c[3].code)
  end)

  it("that waits past its deadline is cancelled where it runs", function()
    local path = c:path()
    local r = c:answer(1, "b.nest", { "c.tick", path }, { timeout_ms = 300 * cluster.SLOW })
    assert.are.equal("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", r.code)
    assert.is_true(#cluster.lines(path) > 0)
    c:await_idle()
    local count = #cluster.lines(path)
    c:result(1, "c.where")
    assert.are.equal(count, #cluster.lines(path))
  end)

  it("ends when its client asks for that, or goes away", function()
    for _, how in ipairs { "cancel", "close" } do
      for _, chain in ipairs { { "c.tick" }, { "b.nest", "c.tick" },
        { "a.nest", "b.nest", "c.tick" } } do
        local path = c:path()
        local fun = table.remove(chain, 1)
        chain[#chain + 1] = path
        local request = c:client(1):call(fun, chain)
        cluster.await_lines(path, 2)
        if how == "cancel" then
          c:client(1):cancel(request)
          assert.are.equal("CANCELLED/CANCELLED", c:client(1):wait(request).code)
        else
          c:client(1):close()
          c.clients[1] = nil
        end
        c:await_idle()
        local count = #cluster.lines(path)
        -- Its next line would have been due before these are answered.
        for _ = 1, 5 do c:result(2, "c.pace", { 5 }) end
        assert.are.equal(count, #cluster.lines(path))
      end
    end
  end)

  it("ends when the command is interrupted", function()
    local path = c:path()
    local command = c[1]:spawn { "call", "b.nest", "c.tick", path }
    cluster.await_lines(path, 2)
    command:kill "sigint"
    assert.are.equal(130, command:wait().code)
    c:await_idle()
  end)
end)

describe("a function with concurrency = 1", function()
  local c
  setup(function()
    c = cluster.start("mesh", { { workers = 2, modules = { "only" } }, {}, {} })
  end)
  teardown(function()
    c:close()
    node.stop_all()
  end)

  it("runs once at a time, whoever calls from wherever", function()
    local path = c:path()
    local requests = {}
    for i = 1, 3 do
      for _ = 1, 30 do
        requests[#requests + 1] = { i, c:client(i):call("only.alone", { path },
          { timeout_ms = 60000 }) }
      end
    end
    for _, r in ipairs(requests) do assert.are.equal("n1", c:client(r[1]):result(r[2])) end
    local lines = cluster.lines(path)
    assert.are.equal(180, #lines)
    for k, line in ipairs(lines) do assert.are.equal(k % 2 == 1 and "begin" or "end", line) end
  end)
end)

describe("among providers", function()
  local c
  after_each(function()
    c:close()
    node.stop_all()
  end)

  --- Drives a few times until the share that `name` got is within bounds: to a node that others
  --- keep from its processor, the other one is no equal.
  local function share(name, least, most, count, ...)
    local told = {}
    for k = 1, TRIES do
      local tally = drive(c, 1, count, ...)
      local got = (tally[name] or 0) / count
      told[k] = ("%d of %d on %s"):format(tally[name] or 0, count, name)
      if got >= least and got <= most then break end
      if k == TRIES then error(table.concat(told, ", "), 2) end
    end
    print("# " .. table.concat(told, ", "))
  end

  it("two that are equal and idle share calls", function()
    c = cluster.start("star", { {}, { modules = { "m" } }, { modules = { "m" } } })
    share("n2", 0.4, 0.6, 10000 / cluster.SLOW, 1, "m.where")
    share("n2", 0.4, 0.6, 10000, 16, "m.where")
  end)

  it("one that is ten times slower gets at most a fifth", function()
    c = cluster.start("star", { {},
      { modules = { "m" }, flags = { "--resource", "pace=" .. 2 * cluster.SLOW } },
      { modules = { "m" }, flags = { "--resource", "pace=" .. 20 * cluster.SLOW } } })
    share("n3", 0, 0.2, 200, 1, "m.pace", { 0 })
    share("n3", 0, 0.2, 1000, 16, "m.pace", { 0 })
  end)

  it("the node that is asked is preferred while it is idle", function()
    c = cluster.start("line", { { modules = { "m" } }, { modules = { "m" } },
      { modules = { "m" } } })
    for i = 1, 3 do
      local tally = drive(c, i, 200, 1, "m.where")
      assert.are.equal(200, tally["n" .. i])
    end
    -- Its one worker computes: others serve.
    local path = c:path()
    local spin = c:client(1):call("m.spin", { path }, { on = "n1", timeout_ms = 60000 })
    cluster.await_lines(path)
    -- What comes in the millisecond before that is noticed waits for the worker.
    local tries = {}
    node.eventually(function()
      tries[#tries + 1] = c:client(1):call("m.where")
      return tries[#tries - 1] and tries[#tries - 1].done
    end, "an answer from elsewhere")
    local began = uv.hrtime()
    local tally = drive(c, 1, 100, 1, "m.where")
    assert.is_true((uv.hrtime() - began) / 1e9 < 30)
    assert.is_nil(tally.n1)
    c:client(1):cancel(spin)
    c:client(1):wait(spin)
  end)
end)
