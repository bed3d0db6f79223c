-- Many nodes as one: who sees whom after joining in all shapes, and what the commands say and exit
-- with when the answer stands on another node. Bounds on time: cluster_times_spec.lua.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"

describe("nodes that join", function()
  local c
  after_each(function()
    if c then c:close() end
    c = nil
    node.stop_all()
  end)

  for _, shape in ipairs { "line", "star", "ring", "mesh", "tree" } do
    it("in the shape of a " .. shape .. " all see all, and call all", function()
      local defs = {}
      for i = 1, 5 do defs[i] = { modules = { "m" .. i } } end
      c = cluster.start(shape, defs)
      for i = 1, 5 do
        for k = 1, 5 do assert.are.equal("n" .. k, c:result(i, ("m%d.where"):format(k))) end
      end
    end)
  end

  it("one after the other are known to all that were there", function()
    c = cluster.start("line", 2)
    for i = 3, 5 do
      c:add({ modules = { "m" .. i } }, { 2 })
      c:settle()
      assert.are.equal("n" .. i, c:result(1, ("m%d.where"):format(i)))
    end
  end)

  it("and are told to stop have left, for all others", function()
    c = cluster.start("line", 3)
    c[2]:stop()
    c:await_all("nodes", function(d)
      return cluster.count(d) == 2 and cluster.count(d, "left") == 1
    end, "one that left")
    assert.are.equal("n3", c:result(1, "mpreg.node", {}, { on = "n3" }).name)
  end)

  it("and are killed are dead, until they are back under their name", function()
    c = cluster.start("line", { {}, { modules = { "m2" } }, {} })
    c:kill(2)
    c:await_all("nodes", function(d) return cluster.count(d, "dead") == 1 end, "one that is dead")
    local back = node.start { "--name", "n2", "--workers", 1, "--join", c[3].addr }
    c:await_all("nodes", function(d)
      return cluster.count(d) == 3 and cluster.count(d, "dead") == 0
    end, "all three alive")
    assert.are.equal(back.addr, c:result(1, "mpreg.node", {}, { on = "n2" }).addr)
    node.eventually(function()
      return c:answer(1, "m2.where").code == "NOT_FOUND/UNKNOWN_FUNCTION"
    end, "the end of what the node of that name had before")
    back:stop()
  end)
end)

describe("commands about a cluster", function()
  local c

  setup(function()
    c = cluster.start("line", {
      { modules = { "a" } },
      { modules = { "b", "train" }, flags = { "--resource", "ds2" } },
      { modules = { "train" }, flags = { "--resource", "gpu", "--resource", "big" },
        sources = {
          b = "return { _VERSION = '1.0.0', other = function() return 'other' end }",
          a = "return { _VERSION = '2.1.0', add = function(x, y) return x * 100 + y end }",
        } },
    })
  end)
  teardown(function()
    c:close()
    node.stop_all()
  end)

  local function document(i, args)
    local words = { unpack(args) }
    words[#words + 1], words[#words + 2] = "-o", "json"
    local r = c[i]:mpreg(words)
    assert.are.equal(0, r.code, r.err .. r.out)
    return assert(codec.json_decode(r.out))
  end

  local function by_name(list)
    local map = {}
    for _, x in ipairs(list) do map[x.name] = x end
    return map
  end

  --- The command fails with that exit code and first line of stderr, the same from all nodes.
  local function fails(code, line, args)
    for i = 1, 3 do
      local r = c[i]:mpreg(args)
      assert.are.equal("error: " .. line, r.err:match "[^\n]*")
      assert.are.equal(code, r.code)
      assert.are.equal("", r.out)
    end
  end

  it("list the nodes alike from each", function()
    for i = 1, 3 do
      local nodes = by_name(document(i, { "nodes" }).nodes)
      for k = 1, 3 do
        local n = nodes["n" .. k]
        assert.are.equal("alive", n.state)
        assert.are.equal(c[k].addr, n.addr)
        assert.are.equal(1, n.workers)
        assert.are.equal("default", n.cluster)
        assert.is_true(n.rtt_ms >= 0 and n.rtt_ms < 1000)
        assert.is_nil(n.via)
      end
      assert.are.same({ "ds2" }, { unpack(nodes.n2.resources) })
      assert.are.same({ "big", "gpu" }, { unpack(nodes.n3.resources) })
    end
  end)

  it("list functions with where they are", function()
    for i = 1, 3 do
      local functions = by_name(document(i, { "functions", "train.*" }).functions)
      assert.are.same({ "n2", "n3" }, { unpack(functions["train.where"].nodes) })
      assert.are.equal("Where it runs.", functions["train.where"].doc)
      local add = by_name(document(i, { "functions", "b.add" }).functions)["b.add"]
      assert.are.same({ "n2" }, { unpack(add.nodes) })
      assert.are.same({ "a", "b" }, { add.params[1].name, add.params[2].name })
    end
  end)

  it("mark modules that differ, and only those", function()
    for i = 1, 3 do
      local differ, count = {}, 0
      for _, m in ipairs(document(i, { "modules" }).modules) do
        differ[m.name] = differ[m.name] or m.differs
        if m.name == "b" then count = count + 1 end
      end
      assert.is_true(differ.b)
      assert.are.equal(2, count)
      assert.is_false(differ.a)
      assert.is_false(differ.train)
      assert.is_false(differ.mpreg)
      assert.truthy(c[i]:mpreg({ "modules" }).out:find "\nb +1%.0%.0 [^\n]*differs")
    end
  end)

  it("ask any node about any other", function()
    for i = 1, 3 do
      for k = 1, 3 do
        local status = document(i, { "status", "--on", "n" .. k })
        assert.are.equal("n" .. k, status.node.name)
        assert.are.equal(c[k]:workers()[1], status.workers[1].pid)
        assert.are.same({ alive = 3, suspect = 0, dead = 0, left = 0 }, status.members)
      end
    end
    local r = c[1]:mpreg { "status", "--on", "n9" }
    assert.are.equal(3, r.code)
    assert.truthy(r.err:find("error: UNAVAILABLE/NO_NODE: ", 1, true))
  end)

  it("show who is linked to whom as text, JSON and dot", function()
    c:result(1, "mpreg.node", {}, { on = "n3" }) -- from now on these two are linked as well
    local topology = document(2, { "topology" })
    assert.are.equal(3, #topology.nodes)
    local links = {}
    for _, l in ipairs(topology.links) do
      assert.is_true(l.source < l.target)
      assert.are.equal("up", l.state)
      links[#links + 1] = l.source .. l.target
    end
    table.sort(links)
    assert.are.equal("n1n2 n1n3 n2n3", table.concat(links, " "))
    local text = c[3]:mpreg({ "topology" }).out
    assert.truthy(text:find("3 nodes · 3 links", 1, true))
    local dot = c[1]:mpreg({ "topology", "--format", "dot" }).out
    assert.truthy(dot:find '^graph [^\n]*{\n')
    assert.truthy(dot:find('"n1" -- "n3"', 1, true))
    assert.are.equal(2, c[1]:mpreg({ "topology", "--format", "png" }).code)
  end)

  it("refuse to forget who is alive, or unknown", function()
    local r = c[1]:mpreg { "forget", "n2" }
    assert.are.equal(3, r.code)
    assert.truthy(r.err:find("error: FAILED_PRECONDITION/NODE_ALIVE: n2 is alive", 1, true))
    r = c[1]:mpreg { "forget", "n9" }
    assert.are.equal(3, r.code)
    assert.truthy(r.err:find("error: NOT_FOUND/UNKNOWN_NODE: ", 1, true))
    assert.are.equal(3, cluster.count(document(1, { "nodes" })))
  end)

  it("call on the node that is named", function()
    for i = 1, 3 do
      for k = 1, 3 do
        assert.are.equal(c[k].addr, document(i, { "call", "--on", "n" .. k, "mpreg.node" }).addr)
      end
    end
    fails(3, "UNAVAILABLE/NO_NODE: there is no node n9 in cluster default",
      { "call", "--on", "n9", "mpreg.node" })
    fails(3, "NOT_FOUND/UNKNOWN_FUNCTION: n1 has no function train.where; n2 and n3 have it",
      { "call", "--on", "n1", "train.where" })
  end)

  it("call where all the resources are, or say who lacks what", function()
    for i = 1, 3 do
      assert.are.equal("n3", document(i, { "call", "train.where", "--need", "gpu", "--need",
        "big" }))
      assert.are.equal("n2", document(i, { "call", "train.where", "--need", "ds2" }))
    end
    fails(3, "FAILED_PRECONDITION/UNSATISFIABLE: train.where needs gpu and ds2: "
      .. "n2 has ds2, n3 has gpu, none has both",
      { "call", "train.where", "--need", "gpu", "--need", "ds2" })
    fails(3, "FAILED_PRECONDITION/UNSATISFIABLE: train.where needs moon: n2 and n3 lack moon",
      { "call", "train.where", "--need", "moon" })
  end)

  it("say at once that nobody has a function, and what is near", function()
    fails(3, "NOT_FOUND/UNKNOWN_FUNCTION: no node has a function train.wher",
      { "call", "train.wher" })
    assert.truthy(c[1]:mpreg({ "call", "train.wher" }).err
      :find("hint: did you mean train.where?", 1, true))
    local r = c[1]:mpreg { "call", "train.wher", "-o", "json" }
    assert.are.equal("UNKNOWN_FUNCTION", codec.json_decode(r.out).error.reason)
    assert.are.equal(3, r.code)
  end)

  it("choose a version, the highest if none is asked for", function()
    for i = 1, 3 do
      assert.are.equal(102, document(i, { "call", "a.add", "1", "2" }))
      assert.are.equal(102, document(i, { "call", "a.add", "1", "2", "--version", "^2.0" }))
      assert.are.equal(3, document(i, { "call", "a.add", "1", "2", "--version", "1.0.0" }))
      assert.are.equal(3, document(i, { "call", "a.add", "1", "2", "--version", ">=1,<2" }))
    end
    fails(3, "FAILED_PRECONDITION/NO_VERSION: no version of a.add matches ^3; there are: 2.1.0, "
      .. "1.0.0", { "call", "a.add", "1", "2", "--version", "^3" })
  end)
end)

describe("a cluster that changes", function()
  local c
  before_each(function()
    c = cluster.start("line", { {}, { modules = { "train" }, flags = { "--resource", "ds2" } } })
  end)
  after_each(function()
    c:close()
    node.stop_all()
  end)

  it("serves a call that waits for a provider, once there is one", function()
    local waiting = {
      c:client(1):call("late.where", {}, { wait = true, timeout_ms = 60000 }),
      c:client(1):call("train.where", {}, { wait = true, needs = { "gpu" }, timeout_ms = 60000 }),
      c:client(1):call("train.where", {}, { wait = true, version = "^2", timeout_ms = 60000 }),
    }
    local command = c[2]:spawn { "call", "late.where", "--wait", "-t", "60s" }
    local late = c:answer(1, "late.where", {}, { wait = true, timeout_ms = 100 })
    assert.are.equal("DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", late.code)
    for _, request in ipairs(waiting) do assert.is_falsy(request.done) end
    c:add({ modules = { "late", "train" }, flags = { "--resource", "gpu" } }, { 1 })
    c:client(1):wait { waiting[1], waiting[2] }
    assert.are.equal("n3", waiting[1].result)
    assert.are.equal("n3", waiting[2].result)
    local r = command:wait()
    assert.are.equal("n3\n", r.out, r.err)
    assert.are.equal(0, r.code)
    c:add({ sources = {
      train = "return { _VERSION = '2.0.0', where = function() return 'two' end }",
    } }, { 2 })
    assert.are.equal("two", c:client(1):result(waiting[3]))
  end)

  it("says who had it, and forgets the dead for good when told to", function()
    c:add({}, { 2 })
    c:settle()
    c:kill(2)
    c:await_state(1, 2, "dead")
    c:await_state(3, 2, "dead")
    local r = c[1]:mpreg { "call", "train.where", "--need", "ds2" }
    assert.are.equal(3, r.code)
    assert.truthy(r.err:find "^error: NOT_FOUND/UNKNOWN_FUNCTION: [^\n]*n2[^\n]*dead"
      or r.err:find "^error: FAILED_PRECONDITION/UNSATISFIABLE: [^\n]*n2[^\n]*dead", r.err)
    r = c[1]:mpreg { "call", "--on", "n2", "mpreg.node" }
    assert.are.equal(3, r.code)
    assert.truthy(r.err:find "^error: UNAVAILABLE/NO_NODE: node n2 is dead for %d+ s")
    local text = c[3]:mpreg({ "nodes" }).out
    assert.truthy(text:find "\nn2 +dead [^\n]*dead for ", text)
    r = c[3]:mpreg { "forget", "n2" }
    assert.are.equal("forgot n2\n", r.out, r.err)
    c:await_all("nodes", function(d) return #d.nodes == 2 end, "two nodes and no trace of n2")
    assert.truthy(c[1]:mpreg({ "call", "--on", "n2", "mpreg.node" }).err
      :find("there is no node n2", 1, true))
  end)

  it("refuses one of another cluster", function()
    local stranger = node.launch { "--name", "n3", "--workers", 1, "--cluster", "other", "--join",
      c[1].addr }
    stranger:await()
    stranger:wait_for("err",
      "refused by n1: (node n3 is of cluster other, node n1 of cluster default)")
    c[1]:wait_for("err", "(node n3 is of cluster other)")
    assert.are.equal(2, cluster.count(c:client(1):query "nodes"))
    stranger:stop()
  end)

  it("refuses one that takes the name of somebody who is there", function()
    local twin = node.launch { "--name", "n2", "--workers", 1, "--join", c[1].addr }
    local r = twin:wait(30)
    assert.are_not.equal(0, r.code)
    assert.truthy(r.err:find(c[2].addr, 1, true), r.err)
    assert.are.equal(2, cluster.count(c:client(1):query "nodes"))
    assert.are.equal("n2", c:result(1, "train.where"))
  end)
end)
