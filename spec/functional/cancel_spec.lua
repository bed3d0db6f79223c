-- Cancelled runs of real nodes: each step appends to a file all the time, and when the run is
-- answered it has stopped, wherever it ran and whatever it did.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

describe("a cancelled run", function()
  local c
  setup(function()
    c = cluster.start("mesh", { { modules = { "a" } }, { modules = { "b" } },
      { modules = { "c" } } })
  end)
  teardown(function()
    c:close()
    node.stop_all()
  end)

  local function graph_of(fun, args)
    return { steps = { { name = "s", call = fun, args = codec.array(args) } } }
  end

  --- Nothing is appended any more, though several lines would be due by now.
  local function has_stopped(path, count)
    for _ = 1, 3 do c:result(1, "a.pace", { 20 }) end
    assert.are.equal(count, #cluster.lines(path))
  end

  --- Where a chain of calls that ends in ticking begins, with what; within how many milliseconds it
  --- has to stop; what the receipt says, if its function gives a result in the end.
  local cases = {
    { "here", "a.tick", {}, 100 },
    { "on another node", "b.tick", {}, 100 },
    { "two calls deep, each on another node", "a.nest", { "b.nest", "c.tick" }, 100 },
    { "two calls deep, back where it began", "b.nest", { "c.nest", "a.tick" }, 100 },
    { "that swallows the news", "a.tick_on", {}, 500 },
    { "that swallows the news on another node", "b.tick_on", {}, 500 },
    { "that computes", "a.tick_busily", {}, 500 },
    { "that computes two calls deep", "a.nest", { "b.nest", "c.tick_busily" }, 500 },
    { "whose callers give up before it does", "b.nest_on", { "a.nest_on", "c.tick_on" }, 500,
      "done" },
  }
  for _, case in ipairs(cases) do
    local what, fun, args, ms, outcome = unpack(case)
    it("has stopped by its answer what runs " .. what, function()
      local path = c:path()
      local all = { unpack(args) }
      all[#all + 1] = path
      local request = c:client(1):run(graph_of(fun, all))
      cluster.await_lines(path, 3)
      local began = uv.hrtime()
      c:client(1):cancel(request)
      local run = c:client(1):result(request)
      local count, took = #cluster.lines(path), (uv.hrtime() - began) / 1e6
      assert.are.equal("cancelled", run.status)
      assert.are.equal(outcome or "stopped", run.receipts[1].outcome)
      assert.is_true(took <= ms * cluster.SLOW, ("it took %.0f ms"):format(took))
      has_stopped(path, count)
    end)
  end

  it("has stopped when the command is interrupted and has ended", function()
    local folder = c.folder .. "/graph.json"
    local path = c:path()
    local file = assert(io.open(folder, "wb"))
    assert(file:write((codec.json_encode(graph_of("a.nest", { "b.nest", "c.tick", path })))))
    file:close()
    local command = c[1]:spawn { "run", folder }
    cluster.await_lines(path, 3)
    command:kill "sigint"
    assert.are.equal(130, command:wait().code)
    local count = #cluster.lines(path)
    has_stopped(path, count)
  end)

  it("never begins what had not begun", function()
    local path = c:path()
    local first = c:client(1):run(graph_of("b.hold_alone", { path }))
    cluster.await_lines(path, 1)
    -- It runs once at a time, so this one waits there.
    local second = c:client(1):run(graph_of("b.hold_alone", { path }))
    c:await_all("status", function(d, i) return i ~= 2 or d.queued == 1 end, "one that waits")
    c:client(1):cancel(second)
    local run = c:client(1):result(second)
    assert.are.equal("cancelled", run.status)
    assert.are.equal("never_started", run.receipts[1].outcome)
    cluster.let_go(path)
    assert.are.equal("succeeded", c:client(1):result(first).status)
    assert.are.equal(1, #cluster.lines(path))
  end)

  it("ends at once when the node that has its step dies", function()
    local path = c:path()
    local request = c:client(1):run(graph_of("c.hold", { path }))
    cluster.await_lines(path, 1)
    c[3]:kill "sigstop" -- it cannot say that it ended
    c:client(1):cancel(request)
    c:kill(3)
    local run = c:client(1):result(request)
    assert.are.equal("cancelled", run.status)
    assert.are.equal("unreachable", run.receipts[1].outcome)
    assert.is_true(run.summary.total_ms < 5000 * cluster.SLOW)
  end)
end)
