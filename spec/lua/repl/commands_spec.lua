local commands = require "mpreg.repl.commands"

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
    for _, name in ipairs { "deploy", "rollback", "trace", "why", "sub", "source" } do
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

  it("times an expression", function()
    local r = repl()
    commands.run(r, "time", "f(1)")
    assert.are.same({ "f(1)", true }, r.evaluated)
  end)
end)
