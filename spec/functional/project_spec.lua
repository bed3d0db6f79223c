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

  --- A man page for the program and for each command, without a complaint of man's.
  local function assert_pages(tree, mpreg, read)
    local pages = { "mpreg.1" }
    local listed = node.run(mpreg, { "--help" }).out:match("\nCommands:\n(.-)\n\n")
    for name in (listed .. "\n"):gmatch("  ([%l-]+)  [^\n]*\n") do
      pages[#pages + 1] = "mpreg-" .. name .. ".1"
    end
    assert.is_true(#pages > 10)
    table.sort(pages)
    local there = node.run("sh", { "-c", "LC_ALL=C ls" }, { cwd = tree .. "/share/man/man1" }).out
    assert.equal(table.concat(pages, "\n") .. "\n", there)
    assert.truthy(read("share/man/man1/mpreg.1"):find("\n.SH COMMANDS\n", 1, true))
    local call = read "share/man/man1/mpreg-call.1"
    assert.truthy(call:find("\nmpreg\\-call \\- Call a function", 1, true), call)
    assert.truthy(call:find("\n.TP\n\\fB\\-\\-on NODE\\fR\n", 1, true), call)
    for _, page in ipairs(pages) do
      -- The program that man runs, which is there where man is not.
      local checked = node.run("groff", { "-man", "-Tutf8", "-Kutf8", "-ww", "-z", page },
        { cwd = tree .. "/share/man/man1" })
      assert.same({ 0, "" }, { checked.code, checked.err })
    end
  end

  --- Each shell's completion where the shell looks; that of bash works, with the moved program.
  local function assert_completion(tree)
    for _, path in ipairs { "share/bash-completion/completions/mpreg",
      "share/zsh/site-functions/_mpreg", "share/fish/vendor_completions.d/mpreg.fish" } do
      assert.equal(0, node.run("test", { "-s", tree .. "/" .. path }).code, path)
    end
    local completed = node.run("bash", { "--norc", "--noprofile", "-c", [[
      source "$0/share/bash-completion/completions/mpreg"
      COMP_WORDS=("$0/bin/mpreg" run x --de) COMP_CWORD=3
      COMP_LINE=${COMP_WORDS[*]} COMP_POINT=${#COMP_LINE}
      _mpreg mpreg --de x
      echo "${COMPREPLY[@]}"]], tree }, { cwd = "/" })
    assert.same({ 0, "--detach\n", "" }, { completed.code, completed.out, completed.err })
  end

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
    assert.truthy(read("share/doc/mpreg/LICENSE"):find("Apache License", 1, true))

    local mpreg = tree .. "/bin/mpreg"
    local version = node.run(mpreg, { "--version" }, { cwd = "/" })
    assert.truthy(version.out:find("^mpreg %d+%.%d+%.%d+\n$"), version.err)
    assert_pages(tree, mpreg, read)
    assert_completion(tree)
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
