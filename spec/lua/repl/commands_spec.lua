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
    for _, name in ipairs { "trace", "why", "sub", "undeploy" } do
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
