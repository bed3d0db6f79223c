-- What stands around the program: the installed tree and the demo.
local node = require "spec.support.node"

local SANITIZED = os.getenv "MPREG_SANITIZED"
local BUILD = os.getenv "MPREG_BUILD" or "build"

describe("the project", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
  end)
  after_each(function()
    node.stop_all()
    node.run("rm", { "-rf", folder, folder .. "-moved" })
  end)

  it("installs a tree that works from anywhere", function()
    if SANITIZED then return pending("the tree is installed from the release build") end
    local installed = node.run("cmake", { "--install", BUILD, "--prefix", folder })
    assert.equal(0, installed.code, installed.out .. installed.err)
    assert.equal(0, node.run("mv", { folder, folder .. "-moved" }).code)
    local tree = folder .. "-moved"
    local function read(path)
      local file = assert(io.open(tree .. "/" .. path))
      local text = file:read("*a")
      file:close()
      return text
    end
    assert.truthy(read("share/man/man1/mpreg.1"):find("Commands:", 1, true))
    assert.truthy(read("share/man/man1/mpreg-call.1"):find("mpreg\\-call", 1, true))
    assert.truthy(read("share/bash-completion/completions/mpreg"):find("call)", 1, true))
    assert.truthy(read("share/doc/mpreg/LICENSE"):find("Apache License", 1, true))

    local mpreg = tree .. "/bin/mpreg"
    local server = node.spawn(mpreg, { "node", "--listen", "127.0.0.1:0" }, { cwd = "/" })
    local addr = server:wait_for("out", '"addr":"([^"]*)"')
    local answer = node.run(mpreg, { "call", "mpreg.echo", "[1]", "-o", "json", "-n", addr },
      { cwd = "/" })
    assert.equal(0, answer.code, answer.err)
    assert.equal("[1]\n", answer.out)
    server:kill("sigterm")
    assert.equal(0, server:wait().code)
  end)

  it("has a demo that shows a trace and a report, and leaves nothing behind", function()
    if SANITIZED then return pending("the demo runs the release build") end
    local demo = node.spawn("tools/demo.sh", {})
    local result = demo:wait(120)
    assert.equal(0, result.code, result.err)
    for _, text in ipairs { '"event":"ready"', "Level 0", "critical path", "The report" } do
      assert.truthy(result.out:find(text, 1, true), text .. " is not in\n" .. result.out)
    end
    assert.same({}, demo:descendants())
  end)
end)
