local commands = require "mpreg.repl.commands"
local commands_support = require "spec.support.commands"

describe("mpreg.repl.commands", function()
  local function repl()
    local r = { errors = {}, written = "", options = {} }
    r.output = {
      write = function(_, text) r.written = r.written .. text end,
      note = function(_, text) r.written = r.written .. text .. "\n" end,
    }
    function r:fail(err) self.errors[#self.errors + 1] = err end
    function r:evaluate(source, opts) self.evaluated = { source, opts.is_timed } end
    return r
  end

  it("names the nearest known command", function()
    local r = repl()
    commands.run(r, "ndoes", "")
    assert.are.equal("unknown command ':ndoes'", r.errors[1].message)
    assert.are.equal("did you mean :nodes?", r.errors[1].hint)
    commands.run(r, "xyzzy", "")
    assert.are.equal(":help lists the commands", r.errors[2].hint)
  end)

  it("has no command of what does not exist yet", function()
    for _, name in ipairs { "undeploy", "forget", "bench" } do
      local r = repl()
      commands.run(r, name, "x")
      assert.truthy(r.errors[1].message:find("unknown command", 1, true), name)
    end
  end)

  it("wants what a command needs, and no more", function()
    local r = repl()
    commands.run(r, "doc", "")
    commands.run(r, "nodes", "x")
    assert.are.same({ ":doc needs NAME", ":nodes takes nothing" },
      { r.errors[1].message, r.errors[2].message })
  end)

  it("lists every command in its help, and ends", function()
    local r = repl()
    commands.run(r, "help", "")
    for _, name in ipairs(commands.names()) do
      assert.truthy(r.written:find("\n  :" .. name, 1, true), name)
    end
    assert.is_nil(r.is_done)
    commands.run(r, "quit", "")
    assert.is_true(r.is_done)
  end)

  describe("with a cluster", function()
    local asked
    local answers = {
      functions = { functions = { { name = "geo.grid.cell", module = "geo.grid" } } },
      source = { module = "geo.grid", version = "1.0.0", hash = ("3fa9c1d2"):rep(8),
        source = "local M = {}\nfunction M.cell() end\nreturn M" },
      history = { module = "geo", entries = {} },
      modules = { modules = {} },
      rollback = { module = "geo", version = "1.0.0", hash = ("3fa9c1d2"):rep(8),
        previous = ("8a771b02"):rep(8), nodes = {} },
    }
    answers.deploy = answers.rollback

    local function connected()
      local r = repl()
      asked = {}
      local client = require "mpreg.client"
      local native = require "mpreg.native"
      local connect = native.connect
      native.connect = function()
        return commands_support.conn(function(what, query, payload)
          asked[#asked + 1] = { what, query, payload }
          return answers[what]
        end)
      end
      r.link = { client = client.connect {} }
      native.connect = connect
      r.output.fail = function(_, err) r:fail(err) end
      function r:connect() return self.link ~= nil end
      return r
    end

    local function step(name, started, run_ms, after)
      return { name = name, call = "m." .. name, status = "succeeded", node = "n1", level = 0,
        attempts = 1, depends_on = { after }, started_ms = started, ended_ms = started + run_ms,
        queue_ms = 0, network_ms = 0, run_ms = run_ms }
    end

    it("asks about the last run of the session, or the one that is named", function()
      local recorded = { run_id = "01KB6QJ0V8XK3M2R7T9C4D5E6F", status = "succeeded",
        steps = { step("a", 0, 10) }, summary = { total_ms = 10, levels = 1, level_ms = { 10 },
          steps = 1, retries = 0, nodes = { "n1" }, critical_path = { "a" } } }
      answers.trace, answers.nodes = recorded, { nodes = { { name = "n1", state = "alive" } } }
      answers.runs = { runs = { { run_id = "01KB6QJ0W9XK3M2R7T9C4D5E7G", status = "failed" } } }
      answers.cancel = { run_id = "01KB", status = "cancelled",
        steps = { { name = "a", outcome = "stopped" } } }
      local r = connected()
      commands.run(r, "why", "")
      assert.equal(":why needs RUN: none was run in this session", r.errors[1].message)
      r.last_run = "01KB6QJ0V8XK3M2R7T9C4D5E6F"
      commands.run(r, "why", "")
      assert.truthy(r.written:find("^The run took 10.0 ms, "))
      assert.same({ run = r.last_run }, asked[1][2])
      commands.run(r, "trace", "last")
      assert.same({ { "nodes", "runs", "trace" }, "01KB6QJ0W9XK3M2R7T9C4D5E7G" },
        { { asked[2][1], asked[3][1], asked[4][1] }, asked[4][2].run })
      assert.truthy(r.written:find("\nRun 01KB6QJ0V8XK3M2R7T9C4D5E6F · succeeded · 1 ", 1, true))
      commands.run(r, "cancel", "")
      assert.truthy(r.written:find("Run 01KB: cancelled · stopped 1\n", 1, true))
      commands.run(r, "runs", "")
      assert.truthy(r.written:find("01KB6QJ0W9XK3M2R7T9C4D5E7G        failed", 1, true), r.written)
      commands.run(r, "trace", "a b")
      commands.run(r, "why", "--follow")
      assert.same({ ":trace knows no 'b'", ":why knows no '--follow'" },
        { r.errors[2].message, r.errors[3].message })
    end)

    it("subscribes to topics", function()
      local r = connected()
      commands.run(r, "sub", "a..b")
      assert.equal("BAD_TOPIC", r.errors[1].reason)
      local pattern
      r.link.client = { subscribe_bytes = function(_, subscribed, _, on_subscribed, on_batch)
        local codec = require "mpreg.codec"
        pattern = subscribed
        on_subscribed((codec.encode { subscribed = subscribed, node = "n1" }))
        on_batch(codec.encode(codec.array { codec.array { "a.b", 1, 0, { x = 1 } } }), "n1", 0, 0)
        return nil, { code = "CANCELLED", reason = "INTERRUPTED" }
      end }
      r.output.flush = function() end
      commands.run(r, "sub", "a.*")
      assert.same({ "a.*", 1 }, { pattern, #r.errors })
      assert.equal('subscribed to a.* at n1\na.b {"x":1}\n\n', r.written)
    end)

    it("resumes a run, and follows one", function()
      local r = connected()
      function r:execute(payload) self.executed = require "mpreg.codec".decode(payload) end
      r.last_run = "01KB6QJ0V8XK3M2R7T9C4D5E6F"
      commands.run(r, "resume", "")
      assert.same({ resume = r.last_run }, r.executed)
      answers.watch = { run_id = r.last_run, status = "succeeded", steps = {},
        summary = { total_ms = 1, levels = 0, level_ms = {}, steps = 0, nodes = {} } }
      commands.run(r, "trace", "--follow")
      assert.same({ "watch", { run = r.last_run } }, { asked[1][1], asked[1][2] })
      assert.truthy(r.written:find("Run 01KB6QJ0V8XK3M2R7T9C4D5E6F · succeeded", 1, true))
    end)

    it("shows the source of a module, or of a function", function()
      local r = connected()
      commands.run(r, "source", "geo.grid")
      assert.equal("-- geo.grid 1.0.0 (3fa9c1d2)\nlocal M = {}\nfunction M.cell() end\nreturn M\n",
        r.written)
      r = connected()
      commands.run(r, "source", "geo.grid.cell")
      assert.equal("-- geo.grid 1.0.0 (3fa9c1d2)\nfunction M.cell() end\n", r.written)
      assert.same({ module = "geo.grid" }, asked[#asked][2])
    end)

    it("names what is nearest to a name without a source", function()
      local r = connected()
      commands.run(r, "source", "geo.grid.cel")
      assert.same({ "NOT_FOUND", "did you mean geo.grid.cell?" },
        { r.errors[1].code, r.errors[1].hint })
    end)

    it("asks a node for the source that has loaded the module", function()
      local listed = answers.modules
      answers.modules = { modules = { { name = "geo.grid", origin = "loaded", live = true,
        nodes = { "n2", "n3" } } } }
      local r = connected()
      r.link.name = "n1"
      commands.run(r, "source", "geo.grid")
      assert.same({ module = "geo.grid", on = "n2" }, asked[#asked][2])
      r = connected()
      r.link.name = "n3"
      commands.run(r, "source", "geo.grid")
      assert.same({ module = "geo.grid" }, asked[#asked][2])
      answers.modules.modules[2] = { name = "geo.grid", origin = "deployed", live = true,
        nodes = { "n2" } }
      r = connected()
      r.link.name = "n1"
      commands.run(r, "source", "geo.grid")
      assert.same({ module = "geo.grid" }, asked[#asked][2])
      answers.modules = listed
    end)

    it("deploys files, rolls back and shows a history", function()
      local r = connected()
      commands.run(r, "deploy", "modules/json.lua  --force")
      local last = asked[#asked]
      assert.same({ "deploy", true, "json" }, { last[1], last[2].force, last[3][1][1] })
      assert.equal("deployed geo 1.0.0 (3fa9c1d2), was 8a771b02\n", r.written)
      r = connected()
      commands.run(r, "rollback", "geo ^1.0")
      last = asked[#asked]
      assert.same({ "rollback", "geo", "^1.0" }, { last[1], last[2].module, last[2].to })
      assert.equal("rolled back geo to 1.0.0 (3fa9c1d2), was 8a771b02\n", r.written)
      r = connected()
      commands.run(r, "history", "geo")
      assert.equal("WHEN  ACTION  VERSION  HASH  PREVIOUS  BY  NODE  STATE\n", r.written)
      for _, line in ipairs { "modules --watch", "--force", "none.lua" } do
        r = connected()
        commands.run(r, "deploy", line)
        assert.same({ "INVALID_ARGUMENT", {} }, { r.errors[1].code, asked })
      end
      r = connected()
      commands.run(r, "rollback", "a b c")
      assert.equal(":rollback takes MODULE and VERSION", r.errors[1].message)
    end)
  end)

  it("times an expression", function()
    local r = repl()
    commands.run(r, "time", "f(1)")
    assert.are.same({ "f(1)", true }, r.evaluated)
  end)
end)
