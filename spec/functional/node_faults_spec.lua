-- Nodes that die, stop, leave, come back or are not who they seem, while others use them.

local client = require "spec.support.client"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

local SLOW = os.getenv "MPREG_SANITIZED" and 10 or 1
local FAR = "spec/functional/fixtures/far.lua"

local function json_of(result)
  return assert(codec.json_decode(result.out), result.out .. result.err)
end

--- A port that is free at the moment.
local function free_port()
  local tcp = uv.new_tcp()
  assert(tcp:bind("127.0.0.1", 0))
  local port = tcp:getsockname().port
  tcp:close()
  uv.run "nowait"
  return port
end

describe("a cluster whose nodes fail", function()
  local path, folders

  before_each(function()
    path = os.tmpname()
    folders = {}
  end)

  after_each(function()
    node.stop_all()
    os.remove(path)
    os.remove(path .. ".ended")
    for _, folder in ipairs(folders) do os.execute("rm -rf '" .. folder .. "'") end
  end)

  local function folder()
    local name = assert(uv.fs_mkdtemp "/tmp/mpreg-spec-XXXXXX")
    folders[#folders + 1] = name
    return name
  end

  local function start(name, ...)
    return node.start { "--name", name, "--workers", "1", ... }
  end

  --- Waits until each of `nodes` lists all these states (name -> state); gives milliseconds.
  local function await_states(nodes, states, seconds)
    local began = uv.hrtime()
    local last
    local ok, err = pcall(node.eventually, function()
      for _, n in ipairs(nodes) do
        last = n:members()
        for name, state in pairs(states) do
          if not last[name] or last[name].state ~= state then return false end
        end
      end
      return true
    end, "the states", (seconds or 5) * (SLOW > 1 and 3 or 1))
    if not ok then error(err .. "; last seen: " .. codec.json_encode(last), 2) end
    return (uv.hrtime() - began) / 1e6
  end

  local function has_function(n, fun)
    for _, f in ipairs(json_of(n:mpreg { "functions", "-o", "json" }).functions) do
      if f.name == fun then return #f.nodes end
    end
    return 0
  end

  local function await_function(n, fun, count, seconds)
    node.eventually(function() return has_function(n, fun) == (count or 1) end,
      ("%s on %d nodes"):format(fun, count or 1), seconds or 5)
  end

  --- A node a with nothing, and b and c that have the module far: all see all.
  local function three(...)
    local a = start("a", ...)
    local b = start("b", "--join", a.addr, "--load", FAR)
    local c = start("c", "--join", b.addr, "--load", FAR)
    await_states({ a, b, c }, { a = "alive", b = "alive", c = "alive" })
    await_function(a, "far.brief", 2)
    return a, b, c
  end

  local function marks(suffix) return node.marks(path .. (suffix or "")) end

  -- ----------------------------------------------------------------------------------------------

  describe("in what it joins", function()
    it("serves, and says it once, if that is itself", function()
      local port = free_port()
      local a = start("a", "--listen", "127.0.0.1:" .. port, "--join", "127.0.0.1:" .. port)
      a:wait_for("err", "(this node itself)", 5)
      assert.are.equal(0, a:mpreg({ "call", "mpreg.echo", "1" }).code)
      uv.sleep(300)
      a:mpreg { "nodes" }
      local _, count = a:err():gsub("this node itself", "")
      assert.are.equal(1, count, a:err())
      assert.are.equal(1, #json_of(a:mpreg { "nodes", "-o", "json" }).nodes)
      a:stop()
    end)

    it("waits for an address where nobody is yet", function()
      local port = free_port()
      local a = start("a", "--join", "127.0.0.1:" .. port)
      assert.are.equal(0, a:mpreg({ "call", "mpreg.echo", "1" }).code)
      a:wait_for("err", "cannot join (127)", 20)
      local b = start("b", "--listen", "127.0.0.1:" .. port)
      await_states({ a, b }, { a = "alive", b = "alive" }, 12)
      a:stop()
      b:stop()
    end)

    it("goes on without a name that does not resolve", function()
      local b = start("b")
      local a = start("a", "--join", "nobody.invalid:7400", "--join", b.addr)
      await_states({ a, b }, { a = "alive", b = "alive" })
      a:wait_for("err", "(nobody%.invalid)", 20)
      a:stop()
      b:stop()
    end)

    it("is refused by another cluster, and serves alone", function()
      local a = start("a", "--cluster", "west")
      local b = start("b", "--cluster", "east", "--join", a.addr)
      for _, n in ipairs { a, b } do
        n:wait_for("err", "west", 5)
        n:wait_for("err", "east", 5)
      end
      assert.are.equal(0, b:mpreg({ "call", "mpreg.echo", "1" }).code)
      for _, n in ipairs { a, b } do
        assert.are.equal(1, #json_of(n:mpreg { "nodes", "-o", "json" }).nodes)
        n:stop()
      end
    end)

    it("finds a cluster whose first seed is gone", function()
      local a, b, c = three()
      a:kill "sigkill"
      a:wait()
      await_states({ b, c }, { a = "dead", b = "alive", c = "alive" })
      assert.are.equal(0, b:mpreg({ "call", "far.where", "--on", "c" }).code)
      local d = start("d", "--join", a.addr, "--join", c.addr)
      await_states({ b, c, d }, { b = "alive", c = "alive", d = "alive" })
      assert.are.equal("b\n", d:mpreg({ "call", "far.where", "--on", "b" }).out)
      for _, n in ipairs { b, c, d } do n:stop() end
    end)
  end)

  describe("with one name twice", function()
    it("keeps the older holder, and the newcomer ends", function()
      local a = start "a"
      local b = start("b", "--join", a.addr)
      await_states({ a, b }, { a = "alive", b = "alive" })
      for _, seed in ipairs { a.addr, b.addr } do
        local other = start("b", "--join", seed)
        local r = other:wait(15)
        assert.are.equal(1, r.code, r.err)
        assert.truthy(r.err:find(b.addr, 1, true), r.err)
        assert.truthy(r.err:find(other.addr, 1, true), r.err)
        await_states({ a, b }, { a = "alive", b = "alive" })
        assert.are.equal(b.addr, a:members().b.addr)
        assert.are.equal(b.name, json_of(a:mpreg { "call", "mpreg.node", "--on", "b", "-o",
          "json" }).name)
      end
      a:stop()
      b:stop()
    end)

    it("gives it to the newcomer if the older holder is gone", function()
      local a = start "a"
      local b = start("b", "--join", a.addr)
      await_states({ a, b }, { a = "alive", b = "alive" })
      local generation = a:members().b.generation
      b:kill "sigkill"
      b:wait()
      local other = start("b", "--join", a.addr, "--load", FAR) -- before b is found to be dead
      node.eventually(function() return a:members().b.addr == other.addr end, "the new address")
      await_states({ a, other }, { a = "alive", b = "alive" })
      assert.truthy(a:members().b.generation > generation)
      await_function(a, "far.where", 1, 3)
      assert.are.equal("b\n", a:mpreg({ "call", "far.where" }).out)
      a:stop()
      other:stop()
    end)
  end)

  describe("restarted", function()
    it("on the same address under another name is another node", function()
      local a, b, c = three()
      b:kill "sigkill"
      b:wait()
      local d = start("d", "--listen", b.addr, "--join", a.addr, "--load", FAR)
      await_states({ a, c, d }, { a = "alive", b = "dead", c = "alive", d = "alive" })
      await_function(a, "far.where", 2, 3)
      assert.are.equal("d\n", a:mpreg({ "call", "far.where", "--on", "d" }).out)
      local gone = a:mpreg { "call", "far.where", "--on", "b" }
      assert.are.equal(3, gone.code, gone.err)
      for _, n in ipairs { a, c, d } do n:stop() end
    end)

    it("with its name and its data is the same node, and has forgotten its calls", function()
      local data = folder()
      local a = start "a"
      local b = start("b", "--join", a.addr, "--load", FAR, "--data", data)
      await_states({ a, b }, { a = "alive", b = "alive" })
      await_function(a, "far.wait")
      local generation = a:members().b.generation
      local caller = a:spawn { "call", "far.wait", 60, path, "-o", "json" }
      node.eventually(function() return marks() == 1 end, "the call")
      b:kill "sigkill"
      local lost = caller:wait()
      assert.are.equal(1, lost.code)
      assert.are.equal("NODE_LOST", json_of(lost).error.reason)
      b:wait()
      b = start("b", "--listen", b.addr, "--data", data, "--load", FAR) -- joins nobody: it is found
      node.eventually(function() return a:members().b.generation > generation end,
        "its new life", 10)
      await_states({ a }, { b = "alive" }, 3)
      await_function(a, "far.where", 1, 3)
      assert.are.equal("b\n", a:mpreg({ "call", "far.where" }).out)
      a:stop()
      b:stop()
    end)

    it("at once, with --join, serves others within 3 s", function()
      local data = folder()
      local a, _, c = three()
      local d = start("d", "--join", a.addr, "--data", data, "--load", "examples/hello")
      await_function(a, "hello.greet", 1)
      await_function(c, "hello.greet", 1)
      d:kill "sigkill"
      d:wait()
      start("d", "--listen", d.addr, "--join", a.addr, "--data", data, "--load", "examples/hello",
        "--load", FAR)
      for _, n in ipairs { a, c } do
        node.eventually(function()
          return n:mpreg({ "call", "hello.greet", "you" }).code == 0
            and n:mpreg({ "call", "far.where", "--on", "d" }).out == "d\n"
        end, "its functions", 3 * (SLOW > 1 and 3 or 1))
      end
      assert.are.equal("alive", c:members().d.state)
    end)

    it("with its name on another port is found there", function()
      local data = folder()
      local a, b = three()
      local d = start("d", "--join", a.addr, "--data", data)
      await_states({ a, b }, { d = "alive" })
      d:stop()
      await_states({ a, b }, { d = "left" })
      local again = start("d", "--join", b.addr, "--data", data, "--load", "examples/hello")
      assert.are_not.equal(d.addr, again.addr)
      await_states({ a, b, again }, { a = "alive", b = "alive", c = "alive", d = "alive" })
      node.eventually(function() return a:members().d.addr == again.addr end, "its new address", 3)
      await_function(a, "hello.greet", 1, 3)
      assert.are.equal(0, a:mpreg({ "call", "hello.greet", "you" }).code)
    end)
  end)

  describe("with a node that stands still", function()
    it("lists it dead, hangs nobody, and takes it back", function()
      local a, b, c = three()
      local cl = client.connect(a)
      local pids = { b.pid, unpack(b:workers()) }
      local waiting = cl:call("far.wait", { 60, path }, { on = "b", timeout_ms = 40000 })
      node.eventually(function() return marks() == 1 end, "the call")
      for _, pid in ipairs(pids) do uv.kill(pid, "sigstop") end
      local began = uv.hrtime()
      local calls = {}
      for i = 1, 40 do
        calls[i] = cl:call("far.brief_idempotent", { 0 }, { timeout_ms = 20000 })
      end
      cl:wait(calls, 10 * SLOW)
      for _, call in ipairs(calls) do assert.are.equal("c", call.result) end
      cl:wait(waiting, 6 * SLOW)
      assert.are.equal("UNAVAILABLE/NODE_LOST", waiting.code)
      await_states({ a, c }, { a = "alive", b = "dead", c = "alive" }, 5)
      local ms = (uv.hrtime() - began) / 1e6
      assert.truthy(ms < 5000 * SLOW, ms .. " ms until it was dead")
      local r = a:mpreg { "call", "far.where", "--on", "b" }
      assert.are.equal(3, r.code, r.err)
      assert.truthy(r.ms < 1000 * SLOW)
      node.eventually(function() return uv.hrtime() - began > 8e9 end, "8 s", 20)
      for _, pid in ipairs(pids) do uv.kill(pid, "sigcont") end
      await_states({ a, b, c }, { a = "alive", b = "alive", c = "alive" }, 10)
      await_function(a, "far.brief", 2, 5)
      assert.are.equal("b\n", a:mpreg({ "call", "far.where", "--on", "b" }).out)
      for _, row in ipairs { a:members().c, c:members().a } do -- never gave up each other
        assert.truthy(row.since_ms > 8000, row.name .. " since " .. row.since_ms)
      end
      cl:close()
      for _, n in ipairs { a, b, c } do n:stop() end
    end)
  end)

  describe("under load", function()
    local function bench(a, fun, seconds)
      return a:spawn { "bench", "call", fun, "0.002", "-c", 16, "-d", seconds .. "s", "-o", "json" }
    end

    local function await_load(a, b, fun)
      -- Both take part: the router has seen each serve.
      node.eventually(function()
        return json_of(b:mpreg { "status", "-o", "json" }).calls > 20
          and a:mpreg({ "call", fun, "0" }).code == 0
      end, "the load")
    end

    it("loses no call when a node is told to stop", function()
      local a, b, c = three()
      local load = bench(a, "far.brief", 2)
      await_load(a, b, "far.brief")
      b:stop()
      assert.are.equal("left", a:members().b.state)
      local figures = json_of(load:wait())
      assert.are.equal(0, figures.errors, codec.json_encode(figures))
      assert.truthy(figures.calls > 100)
      assert.truthy(json_of(c:mpreg { "status", "-o", "json" }).calls > 20)
      await_states({ a, c }, { a = "alive", b = "left", c = "alive" })
    end)

    it("loses no idempotent call when a node is killed", function()
      local a, b = three()
      local load = bench(a, "far.brief_idempotent", 2)
      await_load(a, b, "far.brief_idempotent")
      b:kill "sigkill"
      local figures = json_of(load:wait())
      assert.are.equal(0, figures.errors, codec.json_encode(figures))
      assert.truthy(figures.max_us < 1e6 * SLOW, tostring(figures.max_us))
      await_states({ a }, { b = "dead", c = "alive" })
    end)

    it("loses only what a killed node had, and says so within 50 ms", function()
      local a, b, c = three()
      local cl = client.connect(a)
      local calls = {}
      for i = 1, 64 do calls[i] = cl:call("far.brief", { 0.01 }, { timeout_ms = 20000 }) end
      cl:wait(calls)
      for i = 1, 64 do
        calls[i] = cl:call("far.wait", { 0.5, path }, { timeout_ms = 20000 })
      end
      node.eventually(function() return marks() == 64 end, "all to begin")
      local on_b = json_of(b:mpreg { "status", "-o", "json" }).workers[1].begun
      assert.truthy(on_b > 0, "all went to one node")
      local killed = uv.hrtime()
      b:kill "sigkill"
      cl:wait(calls)
      local lost = 0
      for _, call in ipairs(calls) do
        if call.code then
          assert.are.equal("UNAVAILABLE/NODE_LOST", call.code)
          assert.are.equal("b", call.error.node)
          lost = lost + 1
          local ms = (call.ended - killed) / 1e6
          assert.truthy(ms <= 50 * SLOW, ms .. " ms")
        end
      end
      assert.are.equal(on_b, lost)
      assert.are.equal(64, marks())
      cl:close()
      a:stop()
      c:stop()
    end)
  end)

  describe("and data folders", function()
    it("lets one node at a time have one", function()
      local data = folder()
      local a = start("a", "--data", data)
      local r = node.mpreg { "node", "--listen", "127.0.0.1:0", "--data", data, "--name", "z" }
      assert.are.equal(1, r.code)
      assert.truthy(r.err:find(tostring(a.pid), 1, true), r.err)
      assert.are.equal("", r.out)
      assert.are.equal(0, a:mpreg({ "call", "mpreg.echo", "1" }).code)
      a:stop()
      start("z", "--data", data):stop()
    end)

    it("says what it cannot write on a full disk", function()
      local where = folder()
      local mounted = node.run("mount", { "-t", "tmpfs", "-o", "size=64k", "tmpfs", where })
      if mounted.code ~= 0 then return pending("needs to mount a small file system, as root") end
      local ok, err = pcall(function()
        local file = assert(io.open(where .. "/full", "w"))
        file:setvbuf "no"
        for _ = 1, 32 do file:write(("x"):rep(4096)) end
        file:close()
        local r = node.mpreg { "node", "--listen", "127.0.0.1:0", "--data", where }
        assert.are.equal(1, r.code)
        assert.truthy(r.err:find("No space left", 1, true), r.err)
        assert.truthy(r.err:find(where, 1, true), r.err)
        os.remove(where .. "/full")
        start("a", "--data", where):stop()
      end)
      node.run("umount", { where })
      assert(ok, err)
    end)
  end)
end)
