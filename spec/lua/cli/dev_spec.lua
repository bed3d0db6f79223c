local commands = require "spec.support.commands"
local dev = require "mpreg.cli.dev"

describe("cli.dev", function()
  it("shows what functions log, and warnings", function()
    local function line(text, color) return dev.log_line("n2", text, { color = color }) end
    assert.equal('n2  read {"rows":3} (quakes.load)', line('{"at":"2026-11-28T20:47:10.000Z",'
      .. '"level":"info","node":"n2","message":"read","worker":1,"fun":"quakes.load",'
      .. '"fields":{"rows":3}}'))
    assert.equal("n2  warn: a\\x1b b", line('{"level":"warn","message":"a\\u001b b"}'))
    assert.equal("n2  loading", line('{"level":"info","message":"loading","worker":1,"fun":""}'))
    assert.is_nil(line '{"level":"info","message":"ready on 127.0.0.1:7400"}')
    assert.equal("n2  no JSON", line "no JSON")
    assert.equal("\27[36mn2\27[0m  \27[31merror:\27[0m x", line('{"level":"error","message":"x"}',
      true))
  end)

  it("refuses a folder that is none, and wrong flags, before it starts anything", function()
    local function refused(...)
      local r = commands.run("dev", { ... }, error)
      assert.equal(2, r.code)
      return r.err.message
    end
    assert.equal("README.md: it is no folder", refused "README.md")
    assert.equal("none: No such file or directory", refused "none")
    assert.equal("--nodes: 0 is out of range: from 1 to 16", refused(".", "--nodes", "0"))
    assert.truthy(refused(".", "--resource", "a={"):find("--resource", 1, true))
    assert.equal("too many arguments: 'b'", refused("a", "b"))
  end)
end)
