-- Outputs stand here as they are.
-- luacheck: no max line length

local codec = require "mpreg.codec"
local commands = require "spec.support.commands"

local function node(name, state, extra)
  local n = { name = name, cluster = "default", addr = "127.0.0.1:740" .. name:sub(-1),
    state = state or "alive", resources = codec.array {}, workers = 2, load = 0, version = "0.1.0",
    rtt_ms = 0.24, insecure = false, generation = 1, since_ms = 12345 }
  for key, value in pairs(extra or {}) do n[key] = value end
  return n
end

local function fails(code, reason)
  return function() return nil, { code = code, reason = reason, message = "so it is" } end
end

describe("cli.nodes", function()
  local function nodes()
    return { nodes = { node("n4", "dead"), node("n3", "suspect", { since_ms = 400, via = "n2" }),
      node("n1", "alive", { resources = { "catalogue", "gpu" }, insecure = true, rtt_ms = 0 }),
      node("n2"), node("n0", "left", { since_ms = 90000, version = codec.null }) } }
  end

  it("lists the live ones by name, then those that died or left", function()
    local r = commands.run("nodes", {}, nodes)
    assert.are.equal([[
NODE  STATE    ADDRESS         RESOURCES       WORKERS  LOAD  VERSION     RTT  NOTE
n1    alive    127.0.0.1:7401  catalogue, gpu        2     0  0.1.0    0.0 ms  insecure
n2    alive    127.0.0.1:7402                        2     0  0.1.0    0.2 ms
n3    suspect  127.0.0.1:7403                        2     0  0.1.0    0.2 ms  suspect for 0.4 s, via n2
n0    left     127.0.0.1:7400                        2                         left 1 m 30 s ago
n4    dead     127.0.0.1:7404                        2        0.1.0            dead for 12 s
]], r.out)
    assert.are.same({ 0, { "nodes" } }, { r.code, r.asked })
  end)

  it("colours states on a terminal", function()
    local out = commands.run("nodes", {}, nodes, { color = true }).out
    assert.is_truthy(out:find("n2    \27[32malive\27[0m    127", 1, true), out)
    assert.is_truthy(out:find("\27[33msuspect\27[0m  127", 1, true), out)
    assert.is_truthy(out:find("\27[31mdead\27[0m     127", 1, true), out)
  end)

  it("gives the document as it came", function()
    local r = commands.run("nodes", { "-o", "json" }, nodes)
    assert.are.same(nodes(), commands.document(r))
  end)

  it("passes a failure on", function()
    local r = commands.run("nodes", {}, fails("UNAVAILABLE", "DRAINING"))
    assert.are.same({ 3, "", "DRAINING" }, { r.code, r.out, r.err.reason })
  end)
end)

describe("cli.status", function()
  local function status()
    return { node = node("n1", "alive", { resources = { "catalogue" } }), uptime_s = 200,
      workers = { { pid = 4712, state = "ready", begun = 1, queued = 0, calls = 612, restarts = 0,
        memory_bytes = 13002342 }, { pid = 4713, state = "retiring", begun = 0, queued = 0, calls = 592, restarts = 1,
        memory_bytes = 12582912 } },
      calls = 1204, errors = 3, links = 2, queued = 0,
      members = { alive = 3, suspect = 0, dead = 1, left = 0 }, held = { count = 2, bytes = 82944 } }
  end

  it("prints a page", function()
    local r = commands.run("status", {}, status)
    assert.are.equal([[
n1 · alive · 127.0.0.1:7401 · cluster default · mpreg 0.1.0 · up 3 m 20 s
  resources  catalogue
  members    3 alive, 0 suspect, 1 dead, 0 left
  links      2
  calls      1204, 3 failed, 0 queued
  held       2 results for runs, 81.0 KiB

WORKER  STATE     BEGUN  QUEUED  CALLS  RESTARTS    MEMORY
  4712  ready         1       0    612         0  12.4 MiB
  4713  retiring      0       0    592         1  12.0 MiB
]], r.out)
    assert.are.same({ "status" }, r.asked)
  end)

  it("says when a node is insecure", function()
    local r = commands.run("status", {}, function()
      local s = status()
      s.node.insecure = true
      return s
    end)
    assert.is_truthy(r.out:find("\n  insecure   whoever can connect may run code here\n", 1, true))
  end)

  it("asks the node that --on names, and gives the document", function()
    local r = commands.run("status", { "--on", "n2", "-o", "json" }, status)
    assert.are.same({ "status on n2" }, r.asked)
    assert.are.same(status(), commands.document(r))
    assert.are.equal(2, commands.run("status", { "--on", "n 2" }, status).code)
    assert.are.equal(3, commands.run("status", { "--on", "n9" },
      fails("UNAVAILABLE", "NO_NODE")).code)
  end)
end)

describe("cli.forget", function()
  it("says whom it forgot", function()
    local function forget(_, query) return { forgotten = query.name } end
    local r = commands.run("forget", { "n4" }, forget)
    assert.are.same({ 0, "forgot n4\n", { "forget n4" } }, { r.code, r.out, r.asked })
    r = commands.run("forget", { "n4", "-o", "json" }, forget)
    assert.are.same({ forgotten = "n4" }, commands.document(r))
  end)

  it("refuses whom nobody knows and who is alive", function()
    local r = commands.run("forget", { "n9" }, fails("NOT_FOUND", "UNKNOWN_NODE"))
    assert.are.same({ 3, "UNKNOWN_NODE" }, { r.code, r.err.reason })
    r = commands.run("forget", { "n1" }, fails("FAILED_PRECONDITION", "NODE_ALIVE"))
    assert.are.same({ 3, "NODE_ALIVE" }, { r.code, r.err.reason })
    assert.are.equal(2, commands.run("forget", {}, fails("INTERNAL")).code)
    assert.are.equal(2, commands.run("forget", { "n 1" }, fails("INTERNAL")).code)
  end)
end)

describe("cli.topology", function()
  local function link(name, rtt_ms, state)
    return { node = name, addr = "127.0.0.1:740" .. name:sub(-1), state = state or "up",
      rtt_ms = rtt_ms, outstanding = 0, dialled_by = name }
  end

  -- n1 - n2 - n3 in a line; n4 is dead, n5 does not answer.
  local function line(what, query)
    if what == "nodes" then
      return { nodes = { node("n5"), node("n1"), node("n2"), node("n3", "suspect", { via = "n2" }),
        node("n4", "dead") } }
    end
    local links = {
      n1 = { link("n2", 0.3) }, n2 = { link("n1", 0.2), link("n3", codec.null, "dialling") },
      n3 = { link("n2", 0.4) },
    }
    if not links[query.on] then
      return nil, { code = "UNAVAILABLE", reason = "NODE_LOST", message = "gone" }
    end
    return { node = query.on, links = codec.array(links[query.on]) }
  end

  it("prints the links of each node", function()
    local r = commands.run("topology", {}, line)
    assert.are.equal([[
5 nodes · 2 links
NODE  STATE    ADDRESS         LINKED TO  LINK     RTT  NOTE
n1    alive    127.0.0.1:7401  n2         up    0.2 ms
n2    alive    127.0.0.1:7402  n1         up    0.2 ms
                               n3         up    0.4 ms
n3    suspect  127.0.0.1:7403  n2         up    0.4 ms  via n2
n5    alive    127.0.0.1:7405                           unreachable (NODE_LOST)
n4    dead     127.0.0.1:7404
]], r.out)
    assert.are.equal(0, r.code)
  end)

  it("asks every live node through the one that it is connected to", function()
    local r = commands.run("topology", {}, line)
    assert.are.same({ "nodes", "links on n1", "links on n2", "links on n3", "links on n5" },
      r.asked)
  end)

  it("gives JSON in which a link that both ends tell is one", function()
    local t = commands.document(commands.run("topology", { "-o", "json" }, line))
    assert.are.same({
      { source = "n1", target = "n2", rtt_ms = 0.2, state = "up" },
      { source = "n2", target = "n3", rtt_ms = 0.4, state = "up" },
    }, t.links)
    assert.are.equal(5, #t.nodes)
    assert.are.same({ name = "n1", state = "alive", addr = "127.0.0.1:7401" }, t.nodes[1])
    assert.are.same({ "n5", true, "NODE_LOST" },
      { t.nodes[4].name, t.nodes[4].unreachable, t.nodes[4].error.reason })
    assert.are.same({ name = "n4", state = "dead", addr = "127.0.0.1:7404" }, t.nodes[5])
  end)

  it("writes Graphviz", function()
    assert.are.equal([[
graph cluster {
  node [shape=box, style=rounded];
  "n1" [label="n1\n127.0.0.1:7401"];
  "n2" [label="n2\n127.0.0.1:7402"];
  "n3" [label="n3\n127.0.0.1:7403\nsuspect"];
  "n5" [label="n5\n127.0.0.1:7405\nunreachable", style="rounded,dashed"];
  "n4" [label="n4\n127.0.0.1:7404\ndead", style="rounded,dashed"];
  "n1" -- "n2" [label="0.2 ms"];
  "n2" -- "n3" [label="0.4 ms"];
}
]], commands.run("topology", { "--format", "dot" }, line).out)
  end)

  it("knows one node alone, and empty lists as lists", function()
    local function alone(what)
      if what == "nodes" then return { nodes = { node("n1") } } end
      return { node = "n1", links = codec.array {} }
    end
    assert.are.equal("1 node · 0 links\nNODE  STATE  ADDRESS         LINKED TO  LINK  RTT  NOTE\n"
      .. "n1    alive  127.0.0.1:7401\n", commands.run("topology", {}, alone).out)
    local out = commands.run("topology", { "-o", "json" }, alone).out
    assert.is_truthy(out:find('"links":[]', 1, true), out)
  end)

  it("draws a link that does not stand yet, also to an address without a name", function()
    local function dialling(what)
      if what == "nodes" then return { nodes = { node("n1"), node("n2") } } end
      return { node = "n1", links = {
        { node = codec.null, addr = "127.0.0.1:7402", state = "dialling", rtt_ms = codec.null },
        { node = codec.null, addr = "127.0.0.1:7409", state = "dialling", rtt_ms = codec.null } } }
    end
    local t = commands.document(commands.run("topology", { "-o", "json" }, function(what, query)
      if query.on == "n2" then return { node = "n2", links = codec.array {} } end
      return dialling(what)
    end))
    assert.are.same({
      { source = "127.0.0.1:7409", target = "n1", rtt_ms = codec.null, state = "dialling" },
      { source = "n1", target = "n2", rtt_ms = codec.null, state = "dialling" },
    }, t.links)
    local dot = commands.run("topology", { "--format", "dot" }, dialling).out
    assert.is_truthy(dot:find('"n1" -- "n2" [style=dashed];', 1, true), dot)
  end)

  it("takes 1,000 nodes", function()
    local r = commands.run("topology", { "-o", "json" }, function(what, query)
      if what ~= "nodes" then
        return { node = query.on, links = { { node = "n0", state = "up", rtt_ms = 1 } } }
      end
      local list = {}
      for i = 0, 999 do list[i + 1] = node("n" .. i) end
      return { nodes = list }
    end)
    local t = commands.document(r)
    assert.are.same({ 1000, 999, 1001 }, { #t.nodes, #t.links, #r.asked })
  end)

  it("refuses two forms at once, and passes a failure on", function()
    local r = commands.run("topology", { "-o", "json", "--format", "dot" }, line)
    assert.are.same({ 2, "USAGE" }, { r.code, r.err.reason })
    assert.are.equal(2, commands.run("topology", { "--format", "svg" }, line).code)
    r = commands.run("topology", {}, fails("UNAVAILABLE", "DRAINING"))
    assert.are.same({ 3, "DRAINING" }, { r.code, r.err.reason })
  end)
end)

describe("cli.functions and cli.modules", function()
  local names = codec.array { "n1", "n2", "n3", "n4", "n5", "n6", "n7" }

  it("name the first nodes and count the others", function()
    local r = commands.run("functions", {}, function()
      return { functions = { { name = "a.f", module = "a", version = "1.0.0", nodes = names,
        needs = codec.array {}, doc = "Does.", params = codec.array {}, returns = "number" } } }
    end)
    assert.are.equal([[
FUNCTION        VERSION  NODES           NEEDS  DOC
a.f() → number  1.0.0    n1, n2, n3, +4         Does.
]], r.out)
  end)

  it("note what is shadowed, what differs and what was overtaken", function()
    local function module(name, extra)
      local m = { name = name, version = "1.0.0", hash = "0123456789abcdef", origin = "loaded",
        live = false, nodes = { "n1" }, shadowed = false, differs = false }
      for key, value in pairs(extra) do m[key] = value end
      return m
    end
    local r = commands.run("modules", {}, function()
      return { modules = { module("a", { live = true, nodes = names }),
        module("b", { shadowed = true }), module("c", { live = true, differs = true }),
        module("d", { live = true, origin = "deployed", overtaken = true }) } }
    end)
    assert.are.equal([[
MODULE  VERSION  HASH          ORIGIN    NODES           NOTE
a       1.0.0    0123456789ab  loaded    n1, n2, n3, +4  live
b       1.0.0    0123456789ab  loaded    n1              shadowed
c       1.0.0    0123456789ab  loaded    n1              live, differs
d       1.0.0    0123456789ab  deployed  n1              live, overtaken
]], r.out)
  end)
end)
