-- Nodes that cannot reach each other, but reach one that reaches both: three machines as network
-- namespaces, and cuts between them. As root; elsewhere these are pending, with the reason.

local codec = require "mpreg.codec"
local netns = require "spec.support.netns"
local node = require "spec.support.node"
local uv = require "luv"

local SLOW = os.getenv "MPREG_SANITIZED" and 10 or 1
local FAR = "spec/functional/fixtures/far.lua"
local MIB = 1048576
local NAMES = { "a", "b", "c" }

local function json_of(result)
  return assert(codec.json_decode(result.out), result.out .. result.err)
end

describe("a node out of reach", function()
  local why = netns.missing()
  local net, path, graph_path, n

  before_each(function()
    path = os.tmpname()
    graph_path = path .. ".json"
    n = {}
    if not why then net = netns.open(NAMES) end
  end)

  after_each(function()
    node.stop_all()
    if net then net:close() end
    net = nil
    for _, suffix in ipairs { "", ".ended", ".json" } do os.remove(path .. suffix) end
  end)

  --- An `it` that is pending where there are no namespaces.
  local function case(name, f)
    it(name, function()
      if why then return pending(why) end
      f()
    end)
  end

  --- Milliseconds until `condition(rows of each, name)` holds on all of `names`.
  local function until_all(names, what, condition, seconds)
    local began = uv.hrtime()
    node.eventually(function()
      for _, name in ipairs(names) do
        if not condition(n[name]:members(), name) then return false end
      end
      return true
    end, what, (seconds or 10) * (SLOW > 1 and 2 or 1))
    return (uv.hrtime() - began) / 1e6
  end

  local function sees_all(list)
    for _, name in ipairs(NAMES) do
      if not list[name] or list[name].state ~= "alive" then return false end
    end
    return true
  end

  --- Each joined to the one before.
  local function start_line()
    n.a = net:start("a", { "--load", FAR, "--workers", "1" })
    n.b = net:start("b", { "--join", net:at "a", "--workers", "1" })
    n.c = net:start("c", { "--join", net:at "b", "--load", FAR, "--workers", "1" })
  end

  --- A line whose ends reach each other through b.
  local function start_cut(cut)
    cut()
    start_line()
    until_all(NAMES, "all see all, the ends via b", function(list, name)
      local other = name == "a" and "c" or "a"
      return sees_all(list) and (name == "b" or list[other].via == "b")
    end)
    node.eventually(function()
      return n.a:mpreg { "call", "far.where", "--on", "c" }.code == 0
        and n.c:mpreg { "call", "far.where", "--on", "a" }.code == 0
    end, "calls between the ends")
  end

  local function marks(suffix) return node.marks(path .. (suffix or "")) end

  local function await_marks(count, suffix)
    node.eventually(function() return marks(suffix) >= count end,
      ("%d marks in %s"):format(count, suffix or "the file"))
  end

  local function run(from, graph)
    local file = assert(io.open(graph_path, "w"))
    file:write((assert(codec.json_encode(graph))))
    file:close()
    return json_of(n[from]:mpreg { "run", graph_path, "-o", "json" })
  end

  --- A value of 1 MiB each way: from the far end to the near one, and the other way round.
  local function a_run_crosses(from, to)
    local result = run(from, { name = "crossing", steps = {
      { name = "there", call = "far.text", args = { MIB }, on = to },
      { name = "here", call = "far.length", args = { { ["$ref"] = "there" } }, on = from },
      { name = "mine", call = "far.text", args = { MIB }, on = from },
      { name = "sent", call = "far.bounce", args = { { ["$ref"] = "mine" } }, on = to },
      { name = "back", call = "far.length", args = { { ["$ref"] = "sent.text" } }, on = from },
    } })
    assert.are.equal("succeeded", result.status, codec.json_encode(result.error or codec.null))
    assert.are.same({ here = MIB, back = MIB }, result.output)
    for i, where in ipairs { to, from, from, to, from } do
      assert.are.equal(where, result.steps[i].node)
    end
    assert.truthy(result.summary.bytes_moved >= 3 * MIB, tostring(result.summary.bytes_moved))
    assert.truthy(result.summary.bytes_moved < 3.1 * MIB, tostring(result.summary.bytes_moved))
  end

  --- Everything that passes between two nodes passes through the one between them.
  local function all_passes(from, to)
    local where = json_of(n[from]:mpreg { "call", "far.where", "--on", to, "-o", "json" })
    assert.are.equal(to, where)
    local bounced = n[from]:mpreg { "call", "far.length", "--on", to,
      codec.json_encode(("x"):rep(100000)) }
    assert.are.equal("100000\n", bounced.out, bounced.err)

    a_run_crosses(from, to)

    local failure = n[from]:mpreg { "call", "far.fails", "--on", to, "so it is", "-o", "json" }
    assert.are.equal(1, failure.code)
    local err = json_of(failure).error
    assert.are.equal("so it is", err.message)
    assert.are.same({ "inner", "fails" }, { err.traceback[1]["function"],
      err.traceback[2]["function"] })
    assert.are.equal(to, err.traceback[1].node)

    local before, ended = marks(), marks ".ended"
    local caller = n[from]:spawn { "call", "far.wait", "--on", to, 60, path }
    await_marks(before + 1)
    caller:kill "sigkill"
    caller:wait()
    await_marks(ended + 1, ".ended")
    caller = n[from]:spawn { "call", "far.wait", "--on", to, 60, path }
    await_marks(before + 2)
    caller:kill "sigint"
    assert.are.equal(130, caller:wait().code)
    await_marks(ended + 2, ".ended")

    local late = n[from]:mpreg { "call", "far.spin", "--on", to, "-t", "300ms" }
    assert.are.equal(4, late.code, late.err)
    assert.truthy(late.ms < 300 + 700 * SLOW, late.ms .. " ms")
    assert.are.equal(0, n[from]:mpreg { "call", "far.where", "--on", to }.code)

    assert.are.equal(to, json_of(n[from]:mpreg { "status", "--on", to, "-o", "json" }).node.name)
  end

  local function stop_line()
    for _, name in ipairs { "c", "a", "b" } do n[name]:stop() end
  end

  case("is reached through another one when the cut is both ways", function()
    start_cut(function() net:cut("a", "c") end)
    all_passes("a", "c")
    all_passes("c", "a")
    stop_line()
  end)

  case("is reached through another one when only one way is cut", function()
    start_cut(function() net:cut_one_way("a", "c") end)
    all_passes("a", "c")
    all_passes("c", "a")
    stop_line()
  end)

  case("is lost with the one between, and there again with it", function()
    start_cut(function() net:cut("a", "c") end)
    local caller = n.a:spawn { "call", "far.wait", "--on", "c", 60, path, "-o", "json" }
    await_marks(1)
    local killed = uv.hrtime()
    n.b:kill "sigkill"
    local lost = caller:wait()
    assert.are.equal(1, lost.code, lost.out .. lost.err)
    assert.are.equal("NODE_LOST", json_of(lost).error.reason)
    local ms = (caller.ended - killed) / 1e6
    assert.truthy(ms <= 50 * SLOW, ms .. " ms until the caller heard")
    await_marks(1, ".ended") -- what it asked for has ended as well

    local hopeless = n.a:mpreg { "call", "far.where", "--on", "c", "-t", "20s" }
    assert.truthy(hopeless.code == 1 or hopeless.code == 3, hopeless.code .. hopeless.err)
    assert.truthy(hopeless.ms < 3000 * SLOW, hopeless.ms .. " ms")
    until_all({ "a", "c" }, "the ends give up each other", function(list, name)
      return list.b.state == "dead" and list[name == "a" and "c" or "a"].state == "dead"
    end)

    n.b = net:start("b", { "--join", net:at "a", "--workers", "1" })
    until_all(NAMES, "all see all again", sees_all)
    node.eventually(function()
      return n.a:mpreg { "call", "far.where", "--on", "c" }.out == "c\n"
        and n.c:mpreg { "call", "far.where", "--on", "a" }.out == "a\n"
    end, "calls between the ends again")
    stop_line()
  end)

  case("is spoken to directly again when the cut is gone", function()
    start_cut(function() net:cut("a", "c") end)
    net:heal("a", "c")
    until_all({ "a", "c" }, "nobody is reached through b", function(list)
      for _, name in ipairs(NAMES) do
        if not list[name] or list[name].state ~= "alive" or list[name].via then return false end
      end
      return true
    end)
    node.eventually(function()
      assert.are.equal("c\n", n.a:mpreg { "call", "far.where", "--on", "c" }.out)
      for _, l in ipairs(json_of(n.a:mpreg { "topology", "-o", "json" }).links) do
        if l.source == "a" and l.target == "c" and l.state == "up" then return true end
      end
    end, "a link between the ends")
    n.b:kill "sigkill"
    n.b:wait()
    assert.are.equal("c\n", n.a:mpreg { "call", "far.where", "--on", "c" }.out)
  end)

  case("that was reached directly is reached through another one after a cut", function()
    start_line()
    until_all(NAMES, "all see all", sees_all)
    node.eventually(function()
      return n.a:mpreg { "call", "far.where", "--on", "c" }.out == "c\n"
    end, "a direct call")
    local before = n.b:members()
    net:cut("a", "c")
    until_all({ "a", "c" }, "the ends are reached via b", function(list, name)
      return sees_all(list) and list[name == "a" and "c" or "a"].via == "b"
    end)
    all_passes("a", "c")
    for _, name in ipairs(NAMES) do -- nobody was ever given up
      assert.are.equal(before[name].generation, n.b:members()[name].generation)
      assert.falsy(n[name]:err():find("dead", 1, true), n[name]:err())
    end
    stop_line()
  end)

  case("behind a partition is dead, and alive within 10 s of its end", function()
    start_line()
    until_all(NAMES, "all see all", sees_all)
    net:cut("a", "b")
    net:cut("a", "c")
    until_all(NAMES, "each side gives up the other", function(list, name)
      for _, other in ipairs(NAMES) do
        local is_apart = (name == "a") ~= (other == "a")
        if list[other].state ~= (is_apart and "dead" or "alive") then return false end
      end
      return true
    end)
    assert.are.equal("c\n", n.b:mpreg { "call", "far.where" }.out)
    local r = n.b:mpreg { "call", "far.where", "--on", "a" }
    assert.are.equal(3, r.code, r.err)
    uv.sleep(3000) -- the length of a partition is what this is about
    net:heal("a", "b")
    net:heal("a", "c")
    until_all(NAMES, "all see all again", sees_all, 10)
    node.eventually(function()
      return n.b:mpreg { "call", "far.where", "--on", "a" }.out == "a\n"
    end, "calls across", 3)
    stop_line()
  end)
end)
