local codec = require "mpreg.codec"
local node = require "spec.support.node"

describe("the command line", function()
  local n, folder

  local function write(name, text)
    local path = folder .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
    write("tools.lua", [[
      local tools = { _VERSION = "1.2.0" }
      --- Adds.
      ---@param a number
      ---@param b number
      ---@return number
      function tools.add(a, b) return a + b end
      function tools.count(...) return select("#", ...) end
      function tools.fail() error("no way") end
      function tools.nan() return { x = 0 / 0 } end
      function tools.bytes() return "\255\0\1" end
      function tools.spin() while true do end end
      function tools.secret() return "s" end
      tools._mpreg = { secret = { needs = { "vault" } } }
      return tools
    ]])
    n = node.start { "--name", "n1", "--workers", "2", "--load", folder .. "/tools.lua",
      "--resource", 'data={"path":"x"}' }
  end)

  teardown(function()
    local ok, err = pcall(n.stop, n)
    node.stop_all()
    os.execute("rm -r " .. folder)
    assert(ok, err)
  end)

  local function decode(text)
    local value, err = codec.json_decode(text)
    assert.is_nil(err, text)
    return value
  end

  --- Runs a command and checks its exit code.
  local function run(code, ...)
    local args = { ... }
    local opts = type(args[#args]) == "table" and table.remove(args) or nil
    local r = n:mpreg(args, opts)
    assert.are.equal(code, r.code, ("mpreg %s\nstdout: %s\nstderr: %s"):format(
      table.concat(args, " "), r.out, r.err))
    return r
  end

  --- A refusal: in text on stderr, as JSON on stdout.
  local function refused(code, name, ...)
    local r = run(code, ...)
    assert.are.equal("", r.out)
    assert.are.equal("error: " .. name .. ": ", r.err:sub(1, #name + 9))
    local args = { ... }
    local opts = type(args[#args]) == "table" and table.remove(args) or nil
    -- Before a --, which ends flags.
    table.insert(args, 2, "-o")
    table.insert(args, 3, "json")
    args[#args + 1] = opts
    r = run(code, unpack(args))
    assert.are.equal("", r.err)
    local err = decode(r.out).error
    assert.are.equal(name, err.code .. "/" .. tostring(err.reason))
    return err
  end

  describe("in general", function()
    it("prints help and its version", function()
      assert.is_truthy(run(0, "--help").out:find("Commands:", 1, true))
      assert.is_truthy(run(0, "--version").out:find("^mpreg %d+%.%d+%.%d+\n$"))
      for _, command in ipairs { "node", "call", "run", "plan", "functions", "nodes", "status",
        "topology", "modules", "forget", "bench", "repl" } do
        local r = run(0, command, "--help")
        assert.is_truthy(r.out:find("Usage: mpreg " .. command, 1, true))
        assert.is_truthy(r.out:find("Example:\n  mpreg " .. command, 1, true))
      end
      assert.are.equal("", run(2).out)
    end)

    it("refuses unknown commands and flags, with the nearest", function()
      local r = run(2, "functoins")
      assert.are.equal("error: INVALID_ARGUMENT/USAGE: unknown command 'functoins'\n"
        .. "hint: did you mean functions?\n", r.err)
      assert.are.equal("", r.out)
      r = run(2, "call", "tools.add", "--retires", "1")
      assert.is_truthy(r.err:find("did you mean --retries?", 1, true))
      for _, later in ipairs { "deploy", "sub", "federation", "trace" } do
        run(2, later)
      end
      run(2, "node", "--federation", "x")
    end)

    it("takes flags before, between and after arguments", function()
      assert.are.equal("3\n", run(0, "call", "-o", "json", "tools.add", "1", "-t", "5s", "2").out)
      assert.are.equal("3\n", run(0, "-o", "json", "call", "tools.add", "1", "2").out)
      assert.are.equal("-3.5\n", run(0, "call", "tools.add", "-1", "-2.5").out)
      assert.are.equal("--help\n", run(0, "call", "mpreg.echo", "--", "--help").out)
      refused(2, "INVALID_ARGUMENT/USAGE", "call", "mpreg.echo", "-t", "1s", "-t", "2s")
    end)

    it("tries nodes in turn, and says when there is none", function()
      assert.are.equal("1\n", run(0, "call", "mpreg.echo", "1", "-n", "127.0.0.1:1", "-n",
        n.addr).out)
      assert.are.equal("1\n", run(0, "call", "mpreg.echo", "1",
        { env = { MPREG_NODE = "127.0.0.1:1," .. n.addr } }).out)
      refused(3, "UNAVAILABLE/NO_NODE", "call", "mpreg.echo", "1", "-n", "127.0.0.1:1")
      refused(2, "INVALID_ARGUMENT/USAGE", "nodes", "-n", "nowhere")
    end)

    it("is interrupted while it reads stdin", function()
      local p = n:spawn({ "call", "mpreg.echo", "-" }, { stdin = true })
      node.eventually(function()
        local file = assert(io.open("/proc/" .. p.pid .. "/status"))
        local caught = file:read("*a"):match("SigCgt:%s*(%x+)")
        file:close()
        return tonumber(caught:sub(-1), 16) % 4 >= 2
      end, "the command to handle SIGINT")
      p:kill "sigint"
      assert.are.equal(130, p:wait(20).code)
    end)

    it("takes no part of itself from the current folder or LUA_PATH", function()
      assert(os.execute("mkdir -p " .. folder .. "/mpreg/cli") == 0)
      write("mpreg/cli/init.lua", "error 'not this one'")
      write("bit.lua", "error 'not this one'")
      local r = run(0, "call", "mpreg.echo", "1",
        { cwd = folder, env = { LUA_PATH = folder .. "/?.lua;" .. folder .. "/?/init.lua" } })
      assert.are.equal("1\n", r.out)
    end)

    it("ends quietly when nobody reads", function()
      local r = n:mpreg({ "functions" }, { closed_stdout = true })
      assert.is_true(r.code == 0 or r.code == 1)
      assert.are.equal(0, r.signal)
      assert.are.equal("", r.err)
    end)
  end)

  describe("call", function()
    it("takes JSON, files, stdin and texts", function()
      assert.are.equal('{"a":[1,null,{}]}\n',
        run(0, "call", "mpreg.echo", '{"a":[1,null,{}]}', "-o", "json").out)
      assert.are.equal('"text"\n', run(0, "call", "mpreg.echo", "text", "-o", "json").out)
      assert.are.equal("text\n", run(0, "call", "mpreg.echo", "text").out)
      assert.are.equal("[1,2]\n", run(0, "call", "mpreg.echo", "-", "-o", "json",
        { stdin = " [1, 2]\n" }).out)
      assert.are.equal("[3]\n", run(0, "call", "mpreg.echo", "@" .. write("x.json", "[3]"), "-o",
        "json").out)
      assert.are.equal("null\n", run(0, "call", "mpreg.echo").out)
      assert.are.equal("2\n", run(0, "call", "tools.count", "null", "null").out)
      refused(2, "INVALID_ARGUMENT/BAD_JSON", "call", "mpreg.echo", "{broken")
      refused(2, "INVALID_ARGUMENT/BAD_JSON", "call", "mpreg.echo", '"open')
      refused(2, "INVALID_ARGUMENT/BAD_JSON", "call", "mpreg.echo", '{"a":1,"a":2}')
      refused(2, "INVALID_ARGUMENT/UNREADABLE", "call", "mpreg.echo", "@/no/such/file")
    end)

    it("loses nothing", function()
      for _, text in ipairs { '{"$int":"9007199254740993"}', '{"$bytes":"/wAB"}',
        '{"$lit":{"$int":"1"}}', "[]", "{}", "0.1", "1e+300", '"\\u0000é"' } do
        assert.are.equal(codec.msgpack_to_json(codec.json_to_msgpack(text)) .. "\n",
          run(0, "call", "mpreg.echo", text, "-o", "json").out)
      end
    end)

    it("takes an argument of a mebibyte", function()
      local text = '"' .. ("x"):rep(2 ^ 20) .. '"'
      assert.are.equal(text .. "\n", run(0, "call", "mpreg.echo", "-", "-o", "json",
        { stdin = text }).out)
    end)

    it("writes bytes as they are into a pipe", function()
      assert.are.equal("\255\0\1", run(0, "call", "tools.bytes").out)
      assert.are.equal('{"$bytes":"/wAB"}\n', run(0, "call", "tools.bytes", "-o", "json").out)
    end)

    it("prints what has no JSON form, but not as JSON", function()
      assert.are.equal("{ x = 0/0 }\n", run(0, "call", "tools.nan").out)
      assert.are.equal("UNENCODABLE",
        decode(run(1, "call", "tools.nan", "-o", "json").out).error.reason)
    end)

    it("says when it failed by its exit code", function()
      local err = refused(1, "UNKNOWN/FUNCTION_ERROR", "call", "tools.fail")
      assert.is_truthy(err.message:find("no way", 1, true))
      assert.are.equal("tools.fail", err.fun)
      assert.is_truthy(err.traceback[1].file:find("tools.lua", 1, true))
      err = refused(3, "NOT_FOUND/UNKNOWN_FUNCTION", "call", "tools.ad", "1")
      assert.is_truthy(err.hint:find("tools.add", 1, true))
      refused(3, "FAILED_PRECONDITION/UNSATISFIABLE", "call", "tools.secret")
      refused(3, "FAILED_PRECONDITION/UNSATISFIABLE", "call", "tools.add", "1", "2", "--need",
        "gpu")
      refused(3, "FAILED_PRECONDITION/NO_VERSION", "call", "tools.add", "1", "2", "--version",
        "^2")
      refused(4, "DEADLINE_EXCEEDED/DEADLINE_EXCEEDED", "call", "mpreg.sleep", "30", "-t", "100ms")
      refused(2, "INVALID_ARGUMENT/USAGE", "call", "no-function")
      run(0, "call", "tools.add", "1", "2", "--need", "data", "--version", ">=1.0,<2", "--on", "n1",
        "--retries", "2")
    end)

    it("is cancelled by SIGINT", function()
      local p = n:spawn { "call", "mpreg.sleep", "60" }
      node.eventually(function()
        return decode(run(0, "nodes", "-o", "json").out).nodes[1].load > 0
      end, "the call to begin")
      p:kill "sigint"
      local r = p:wait(20)
      assert.are.equal(130, r.code, r.err)
      assert.is_truthy(r.err:find("CANCELLED/INTERRUPTED", 1, true), r.err)
    end)
  end)

  describe("run", function()
    local graph, failing

    setup(function()
      graph = write("graph.json", [[{"name": "sums", "input": {"n": 1}, "steps": [
        {"name": "a", "call": "tools.add", "args": [{"$ref": "input.n"}, 1]},
        {"name": "b", "call": "tools.add", "args": [{"$ref": "a"}, 10]}],
        "output": {"sum": {"$ref": "b"}}}]])
      failing = write("failing.json", [[{"steps": [
        {"name": "good", "call": "tools.add", "args": [1, 1]},
        {"name": "bad", "call": "tools.fail", "after": ["good"]},
        {"name": "never", "call": "mpreg.echo", "args": [{"$ref": "bad"}]}]}]])
    end)

    it("prints the output, and the trace if asked to", function()
      assert.are.same({ sum = 12 }, decode(run(0, "run", graph).out))
      local out = run(0, "run", graph, "--input", '{"n": 5}', "--trace").out
      assert.is_truthy(out:find('"sum": 16', 1, true) or out:find('"sum":16', 1, true), out)
      assert.is_truthy(out:find("\nRun [%w]+ sums · succeeded · 2 levels · 2 steps · 1 node · "))
      assert.is_truthy(out:find("\nLevel 0 [^\n]*50%.0%%  new: a   available: a\n"), out)
      assert.is_truthy(out:find("\nLevel 1 [^\n]*100%.0%%  new: b   available: a, b\n"), out)
      assert.is_truthy(out:find("critical path: a → b\n", 1, true), out)
      assert.is_nil(out:find("\27", 1, true))
    end)

    it("prints the run object as JSON", function()
      local r = decode(run(0, "run", graph, "-o", "json", "--trace").out)
      assert.are.equal("succeeded", r.status)
      assert.are.same({ sum = 12 }, r.output)
      assert.are.same({ 2, 2, 2 }, { #r.steps, #r.levels, r.summary.succeeded })
      assert.is_nil(decode(run(0, "run", graph, "-o", "json").out).levels)
    end)

    it("runs pipelines in Lua, and a graph from stdin", function()
      local path = write("pipeline.lua", [[
        local mpreg = require "mpreg"
        return mpreg.pipeline("lua", function(p, input)
          local a = p "a" { "tools.add", input.n, 1 }
          return p "b" { "mpreg.echo", { value = a, ["$ref"] = nil } }.value
        end, { input = { n = 2 } })
      ]])
      assert.are.equal("3\n", run(0, "run", path).out)
      assert.are.equal("6\n", run(0, "run", folder, "--input", '{"n":5}').out)
      assert.are.same({ a = 1 }, decode(run(0, "run", "-",
        { stdin = '{"steps":[{"name":"a","call":"mpreg.echo","args":[1]}]}' }).out))
    end)

    it("exits 1 when a run fails, with everything that finished", function()
      local r = run(1, "run", failing)
      assert.are.equal("", r.out)
      assert.is_truthy(r.err:find("^error: UNKNOWN/FUNCTION_ERROR: "), r.err)
      assert.is_truthy(r.err:find("in step bad", 1, true), r.err)
      local object = decode(run(1, "run", failing, "-o", "json").out)
      assert.are.equal("failed", object.status)
      assert.are.equal("bad", object.error.step)
      local status = {}
      for _, step in ipairs(object.steps) do status[step.name] = step.status end
      assert.are.same({ good = "succeeded", bad = "failed", never = "skipped" }, status)
    end)

    it("refuses a bad graph with all faults, exit 2, and an unknown function, exit 3", function()
      local bad = write("bad.json", [[{"steps": [
        {"name": "a", "call": "tools.add", "args": [{"$ref": "b"}, 1]},
        {"name": "b", "call": "tools.add", "args": [{"$ref": "a"}, {"$ref": "aa"}]}]}]])
      local err = refused(2, "INVALID_ARGUMENT/CYCLE", "run", bad)
      assert.are.equal(2, #err.faults)
      assert.is_truthy(err.message:find("a -> b -> a", 1, true))
      local unknown = write("unknown.json", '{"steps":[{"name":"a","call":"tools.ad","args":[]}]}')
      refused(3, "NOT_FOUND/UNKNOWN_FUNCTION", "run", unknown)
      refused(3, "NOT_FOUND/UNKNOWN_FUNCTION", "plan", unknown)
      refused(2, "INVALID_ARGUMENT/BAD_JSON", "run", write("no.json", "{"))
      refused(2, "INVALID_ARGUMENT/BAD_JSON", "run", graph, "--input", "text")
      refused(2, "INVALID_ARGUMENT/BAD_PIPELINE", "run", write("no.lua", "return 1"))
      refused(2, "INVALID_ARGUMENT/UNREADABLE", "run", folder .. "/none.json")
    end)

    it("keeps to its deadline", function()
      local slow = write("slow.json",
        '{"steps":[{"name":"s","call":"mpreg.sleep","args":[60]}]}')
      local object = decode(run(4, "run", slow, "-t", "200ms", "-o", "json").out)
      assert.are.equal("timed_out", object.status)
      assert.are.equal("DEADLINE_EXCEEDED", object.error.code)
    end)

    it("follows a run, an object a line", function()
      local r = run(0, "run", graph, "--follow", "-o", "json")
      local events = {}
      for line in r.out:gmatch("[^\n]+") do events[#events + 1] = decode(line) end
      for i, event in ipairs(events) do assert.are.equal(i, event.seq) end
      assert.are.equal("run_started", events[1].event)
      assert.are.equal("run_finished", events[#events].event)
      assert.are.same({ sum = 12 }, events[#events].output)
      assert.are.equal("succeeded", events[#events].status)
      r = run(0, "run", graph, "--follow")
      assert.is_truthy(r.out:find("step_succeeded   a", 1, true), r.out)
      run(1, "run", failing, "--follow", "-o", "json")
    end)

    it("cancels the run on SIGINT", function()
      local slow = write("slow.json",
        '{"steps":[{"name":"s","call":"mpreg.sleep","args":[60]}]}')
      local p = n:spawn { "run", slow, "--follow", "-o", "json" }
      p:wait_for("out", "(step_started)")
      p:kill "sigint"
      local r = p:wait(20)
      assert.are.equal(130, r.code, r.err)
    end)

    it("detaches", function()
      local id = decode(run(0, "run", graph, "--detach", "-o", "json").out).run_id
      assert.is_truthy(id:find("^%w+$"))
      assert.is_truthy(run(0, "run", graph, "--detach").out:find("^%w+\n$"))
      refused(2, "INVALID_ARGUMENT/USAGE", "run", graph, "--detach", "--follow")
    end)

    it("draws on a terminal, and ends with the trace", function()
      local r = node.mpreg_on_terminal({ "run", graph }, { env = { MPREG_NODE = n.addr,
        TERM = "xterm" } })
      assert.are.equal(0, r.code, r.out)
      local plain = r.out:gsub("\27%[[%d;]*%a", "")
      assert.is_truthy(plain:find("critical path: a → b", 1, true), r.out)
      assert.is_truthy(r.out:find("\27[1m", 1, true), r.out)
      r = node.mpreg_on_terminal({ "run", graph }, { env = { MPREG_NODE = n.addr, TERM = "xterm",
        NO_COLOR = "1" } })
      assert.is_nil(r.out:find("\27%[%d*m"), r.out)
    end)
  end)

  describe("plan", function()
    local graph

    setup(function()
      graph = write("plan.json", [[{"name": "p", "steps": [
        {"name": "a", "call": "tools.add", "args": [1, 1]},
        {"name": "b", "call": "mpreg.echo", "args": [{"$ref": "a"}], "needs": ["data"]}]}]])
    end)

    it("shows levels and nodes in every form, and runs nothing", function()
      local text = run(0, "plan", graph).out
      assert.is_truthy(text:find("^Plan p · 2 levels · 2 steps\n"), text)
      assert.is_truthy(text:find("0  a +tools%.add 1%.2%.0 +n1"), text)
      assert.is_truthy(run(0, "plan", graph, "--format", "dot").out:find('"a" -> "b";', 1, true))
      assert.is_truthy(run(0, "plan", graph, "--format", "mermaid").out:find("s1 --> s2", 1, true))
      local plan = decode(run(0, "plan", graph, "-o", "json").out)
      assert.are.same({ { "a" }, { "b" } }, plan.levels)
      assert.are.same(plan, decode(run(0, "plan", graph, "--format", "json").out))
      assert.are.equal("n1", plan.steps[1].node)
    end)

    it("refuses an unknown form", function()
      refused(2, "INVALID_ARGUMENT/USAGE", "plan", graph, "--format", "svg")
    end)
  end)

  describe("lists", function()
    it("prints functions", function()
      local found = {}
      for _, fun in ipairs(decode(run(0, "functions", "-o", "json").out).functions) do
        found[fun.name] = fun
      end
      local add = found["tools.add"]
      assert.are.same({ "tools", "1.2.0", { "n1" }, "number" },
        { add.module, add.version, add.nodes, add.returns })
      assert.are.same({ "a", "b" }, { add.params[1].name, add.params[2].name })
      assert.are.same({ "vault" }, found["tools.secret"].needs)
      assert.is_table(found["mpreg.echo"])
      local text = run(0, "functions", "tools.*").out
      assert.is_truthy(text:find("^FUNCTION +VERSION +NODES +NEEDS +DOC\n"), text)
      assert.is_truthy(text:find("\ntools.add%(a, b%) → number +1%.2%.0 +n1 +Adds%.\n"), text)
      assert.is_nil(text:find("mpreg.echo", 1, true))
      assert.are.equal(1, #decode(run(0, "functions", "tools.add", "-o", "json").out).functions)
      local none = run(0, "functions", "nothing.*")
      assert.are.same({ "", "no functions\n" }, { none.out, none.err })
    end)

    it("prints nodes", function()
      local nodes = decode(run(0, "nodes", "-o", "json").out).nodes
      assert.are.equal(1, #nodes)
      assert.are.same({ "n1", "default", n.addr, "alive", { "data" } }, { nodes[1].name,
        nodes[1].cluster, nodes[1].addr, nodes[1].state, nodes[1].resources })
      local text = run(0, "nodes").out
      assert.is_truthy(text:find("^NODE +STATE +ADDRESS +RESOURCES +WORKERS +LOAD +VERSION +RTT"),
        text)
      assert.is_truthy(text:find("\nn1 +alive +127%.0%.0%.1:%d+ +data +2 "), text)
      assert.is_nil(text:find("\nn1[^\n]*insecure"))
    end)

    it("prints the status of a node", function()
      local status = decode(run(0, "status", "-o", "json").out)
      assert.are.same({ "n1", "alive", n.addr, 2, 0 }, { status.node.name, status.node.state,
        status.node.addr, #status.workers, status.links })
      for _, worker in ipairs(status.workers) do
        for _, key in ipairs { "pid", "begun", "queued", "calls", "restarts", "memory_bytes" } do
          assert.is_number(worker[key], key)
        end
        assert.are.equal("ready", worker.state)
      end
      for _, key in ipairs { "uptime_s", "calls", "errors", "queued" } do
        assert.is_number(status[key], key)
      end
      assert.are.same({ alive = 1, suspect = 0, dead = 0, left = 0 }, status.members)
      assert.are.equal("n1", decode(run(0, "status", "--on", "n1", "-o", "json").out).node.name)
      local text = run(0, "status").out
      assert.is_truthy(text:find("n1 · alive · " .. n.addr .. " · cluster default", 1, true), text)
      assert.is_truthy(text:find("\n  members    1 alive, 0 suspect, 0 dead, 0 left\n", 1, true),
        text)
      assert.is_truthy(text:find("\n *%d+  ready" .. (" *%d+"):rep(4) .. " +[%d.]+ MiB\n"), text)
      run(3, "status", "--on", "n9")
    end)

    it("prints the topology of one node", function()
      assert.are.same({ nodes = { { name = "n1", state = "alive", addr = n.addr } },
        links = {} }, decode(run(0, "topology", "-o", "json").out))
      assert.is_truthy(run(0, "topology").out:find("^1 node · 0 links\nNODE .*\nn1 +alive "))
      assert.is_truthy(run(0, "topology", "--format", "dot").out:find('^graph cluster {.*"n1" %['))
      refused(2, "INVALID_ARGUMENT/USAGE", "topology", "--format", "svg")
    end)

    it("forgets nobody who is alive or unknown", function()
      refused(3, "FAILED_PRECONDITION/NODE_ALIVE", "forget", "n1")
      refused(3, "NOT_FOUND/UNKNOWN_NODE", "forget", "n9")
    end)

    it("prints modules", function()
      local found = {}
      for _, module in ipairs(decode(run(0, "modules", "-o", "json").out).modules) do
        found[module.name] = module
      end
      assert.are.same({ "1.2.0", "loaded", { "n1" } },
        { found.tools.version, found.tools.origin, found.tools.nodes })
      assert.is_truthy(run(0, "modules").out:find("\ntools +1%.2%.0 +%x+ +loaded +n1"))
    end)
  end)

  describe("bench", function()
    it("measures calls and runs", function()
      local figures = decode(run(0, "bench", "call", "mpreg.echo", "hello", "-c", "4", "-d",
        "200ms", "-o", "json").out)
      assert.is_true(figures.calls > 0)
      assert.are.equal(0, figures.errors)
      for _, key in ipairs { "seconds", "calls_per_s", "p50_us", "p90_us", "p99_us", "p999_us",
        "max_us" } do
        assert.is_number(figures[key], key)
      end
      local text = run(0, "bench", "call", "mpreg.echo", "-d", "100ms", "--connections", "2", "-c",
        "2").out
      assert.is_truthy(text:find("^%d+ calls in [%d.]+ s: %d+ a second, 0 failed\np50 "), text)
      local graph = write("one.json", '{"steps":[{"name":"a","call":"mpreg.echo","args":[1]}]}')
      figures = decode(run(0, "bench", "run", graph, "-d", "100ms", "-o", "json").out)
      assert.is_true(figures.calls > 0)
    end)

    it("counts what fails, by code and reason", function()
      local r = n:mpreg { "bench", "call", "tools.fail", "-d", "50ms", "-o", "json" }
      local figures = decode(r.out)
      assert.is_true(figures.errors > 0, r.out)
      assert.are.equal(figures.errors, figures.errors_by["UNKNOWN/FUNCTION_ERROR"])
      refused(3, "NOT_FOUND/UNKNOWN_FUNCTION", "bench", "call", "tools.ad", "-d", "50ms")
      refused(2, "INVALID_ARGUMENT/USAGE", "bench", "sub", "x")
      refused(2, "INVALID_ARGUMENT/USAGE", "bench", "call", "mpreg.echo", "--connections", "2")
    end)
  end)
end)

describe("a node's command line", function()
  after_each(node.stop_all)

  it("prints one line when it serves and nothing else, and ends with 0", function()
    local n = node.start { "--name", "one", "--cluster", "eu", "--workers", "1" }
    assert.are.same({ "one", "eu" }, { n.name, n.cluster })
    local ready = codec.json_decode(n.ready)
    assert.are.same({ event = "ready", node = "one", cluster = "eu", addr = n.addr, pid = n.pid },
      ready)
    local r = n:stop()
    assert.are.equal(n.ready .. "\n", r.out)
  end)

  it("makes a name of the host's", function()
    local n = node.start { "--workers", "1" }
    assert.is_truthy(codec.json_decode(n.ready).node:find("^[%w_][%w_-]*%-%x%x%x%x$"), n.ready)
    n:stop()
  end)

  it("refuses a wrong config with all faults, exit 2", function()
    local r = node.mpreg { "node", "--workers", "0", "--name", "a b", "--drain", "soon", "-o",
      "json" }
    assert.are.equal(2, r.code)
    assert.are.equal(3, #codec.json_decode(r.out).error.faults)
    r = node.mpreg { "node", "--listen", "0.0.0.0:0" }
    assert.are.equal(2, r.code)
    assert.is_truthy(r.err:find("INVALID_ARGUMENT/INSECURE", 1, true), r.err)
    r = node.mpreg { "node", "extra" }
    assert.are.equal(2, r.code)
  end)

  it("listens beyond this machine with --insecure, and says so", function()
    local n = node.start { "--listen", "0.0.0.0:0", "--insecure", "--workers", "1", "--advertise",
      "127.0.0.1:0" }
    local r = node.mpreg { "nodes", "-n", "127.0.0.1:" .. n.port }
    assert.is_truthy(r.out:find("insecure", 1, true), r.out .. r.err)
    n:stop()
  end)

  it("starts from a config file", function()
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write [[return { name = "filed", listen = "127.0.0.1:0", workers = 1,
      load = "examples/hello", resource = { data = { 1 } } }]]
    file:close()
    local n = node.start { "--config", path }
    os.remove(path)
    assert.are.equal("filed", n.name)
    assert.are.equal("Hello, you!\n", n:mpreg({ "call", "hello.greet", "you" }).out)
    n:stop()
  end)
end)
