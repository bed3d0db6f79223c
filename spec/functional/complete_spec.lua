-- Completion in the shells themselves, against a real node.
local node = require "spec.support.node"

local SANITIZED = os.getenv "MPREG_SANITIZED"

local function has_program(name)
  return node.run("sh", { "-c", "command -v " .. name }).code == 0
end

--- A word for a shell.
local function quoted(text) return "'" .. text:gsub("'", "'\\''") .. "'" end

-- A machine that is busy may make a node too slow for one press of the tab key.
local ATTEMPTS = 10
local GAVE_UP = 14 -- how `mpreg complete` ends then

--- Asserts that a function gives a text, the first time or a later one.
local function assert_soon(expected, get, ...)
  local got
  for _ = 1, ATTEMPTS do
    got = get(...)
    if got == expected then break end
  end
  assert.equal(expected, got)
end

describe("completion", function()
  local n, folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert.equal(0, node.run("mkdir", { "-p", folder .. "/bin", folder .. "/a b" }).code)
    -- The shells find the program under its name, as once it is installed.
    assert.equal(0, node.run("sh", { "-c", ("printf '#!/bin/sh\\nexec %%s \"$@\"\\n' %s >%s && "
      .. "chmod +x %s"):format(quoted(node.bin()), folder .. "/bin/mpreg",
        folder .. "/bin/mpreg") }).code)
    n = node.start { "--name", "n1", "--load", "examples/hello", "--load", "examples/quakes" }
  end)
  after_each(function()
    node.stop_all()
    node.run("rm", { "-rf", folder })
  end)

  local function environment()
    return { MPREG_NODE = n.addr, PATH = folder .. "/bin:" .. os.getenv "PATH", HOME = folder,
      TERM = "xterm", FOLDER = folder }
  end

  --- What `mpreg complete` prints for words.
  local function complete(words, env)
    local list = { "complete", "--" }
    for _, word in ipairs(words) do list[#list + 1] = word end
    local r = node.mpreg(list, { env = env or { MPREG_NODE = n.addr } })
    assert.equal("", r.err)
    assert.is_true(r.code == 0 or r.code == GAVE_UP, r.code)
    return r.out, r.ms
  end

  it("knows what the node knows", function()
    assert_soon("hello.greet\tGreets somebody.\n", complete, { "call", "hello." })
    assert_soon("mpreg.echo\tGives back exactly what it was given.\n", complete,
      { "bench", "call", "mpreg.e" })
    assert_soon("quakes\tpipeline, on n1\n:files\t\n", complete, { "run", "" })
    assert_soon("n1\talive, " .. n.addr .. "\n", complete, { "status", "--on", "" })
    assert_soon("n1\talive, " .. n.addr .. "\n", complete, { "forget", "" })
    assert_soon(n.addr .. "\tn1, alive\n", complete, { "nodes", "-n", "" })
    assert_soon("hello.*\tThe functions of hello.\nhello.greet\tGreets somebody.\n", complete,
      { "functions", "he" })
  end)

  it("asks the node that the line names", function()
    local elsewhere = { MPREG_NODE = "127.0.0.1:1" }
    assert.equal("", complete({ "call", "hello." }, elsewhere))
    assert_soon("hello.greet\tGreets somebody.\n", complete,
      { "call", "--node=" .. n.addr, "hello." }, elsewhere)
    assert_soon("hello.greet\tGreets somebody.\n", complete,
      { "-n", n.addr, "call", "hello." }, elsewhere)
  end)

  it("is quick and silent without a node that answers", function()
    n:kill("sigstop")
    for _, address in ipairs { "127.0.0.1:1", n.addr, "nobody.invalid:7400", "nonsense" } do
      local out, ms = complete({ "call", "" }, { MPREG_NODE = address })
      assert.equal("", out)
      assert.is_true(SANITIZED ~= nil or ms < 1000, ("%s: %d ms"):format(address, ms))
      assert.equal("", (complete { "call", "-n", address, "" }))
    end
    assert.truthy(complete({ "nodes", "--out" }):find("^%-%-output\t"))
    n:kill("sigcont")
  end)

  it("is listed nowhere", function()
    assert.is_nil(node.mpreg({ "--help" }).out:find("  complete ", 1, true))
    assert.truthy(node.mpreg({ "complete", "--help" }).out:find("mpreg complete %-%-"))
  end)

  -- Runs bash's function on words as bash splits them, of which `last` is the text that readline
  -- would replace; gives what it would put there, sorted.
  local function in_bash(words, last, line)
    local list = {}
    for i, word in ipairs(words) do list[i] = quoted(word) end
    local r = node.run("bash", { "--norc", "--noprofile", "-c", ([[
      source completion/mpreg.bash
      complete -p mpreg >/dev/null || exit 1
      COMP_WORDS=(%s) COMP_LINE=%s
      COMP_POINT=${#COMP_LINE} COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
      _mpreg mpreg %s ""
      ((${#COMPREPLY[@]} == 0)) || printf '%%s\n' "${COMPREPLY[@]}" | LC_ALL=C sort
    ]]):format(table.concat(list, " "), quoted(line), quoted(last)) }, { env = environment() })
    assert.same({ 0, "" }, { r.code, r.err })
    return r.out
  end

  it("is there in bash", function()
    assert_soon("hello.greet\n", in_bash, { "mpreg", "call", "hello." }, "hello.",
      "mpreg call hello.")
    assert.equal("call\n", in_bash({ "mpreg", "cal" }, "cal", "mpreg cal"))
    assert.equal("json\ntext\n", in_bash({ "mpreg", "nodes", "-o", "" }, "", "mpreg nodes -o "))
    assert.equal("--detach\n", in_bash({ "mpreg", "run", "x", "--de" }, "--de",
      "mpreg run x --de"))
    assert.truthy(in_bash({ "mpreg", "" }, "", "mpreg "):find("bench\ncall\n", 1, true))
    assert.equal("", in_bash({ "mpreg", "frob", "" }, "", "mpreg frob "))
  end)

  it("puts words together that bash splits", function()
    assert.equal("json\n", in_bash({ "mpreg", "nodes", "--output", "=", "js" }, "js",
      "mpreg nodes --output=js"))
    assert.equal("json\ntext\n", in_bash({ "mpreg", "nodes", "--output", "=" }, "",
      "mpreg nodes --output="))
    local port = n.addr:match("%d+$")
    assert_soon(port .. "\n", in_bash, { "mpreg", "nodes", "-n", "127.0.0.1", ":",
      port:sub(1, 2) }, port:sub(1, 2), "mpreg nodes -n 127.0.0.1:" .. port:sub(1, 2))
    assert_soon("hello.greet\n", in_bash, { "mpreg", "call", "-n", "127.0.0.1", ":", port,
      "hel" }, "hel", ("mpreg call -n 127.0.0.1:%s hel"):format(port))
    assert_soon("hello.greet\n", in_bash, { "mpreg", "call", "'hel" }, "hel", "mpreg call 'hel")
  end)

  it("has paths in bash", function()
    assert.equal("docs/cli.md\n", in_bash({ "mpreg", "node", "--load", "docs/cli" }, "docs/cli",
      "mpreg node --load docs/cli"))
    assert.equal("spec/support\n", in_bash({ "mpreg", "node", "--data", "=", "spec/su" },
      "spec/su", "mpreg node --data=spec/su"))
    assert.equal("@docs/cli.md\n", in_bash({ "mpreg", "run", "x", "--input", "=@", "docs/cli" },
      "@docs/cli", "mpreg run x --input=@docs/cli"))
    local path = folder .. "/a"
    assert.equal("@" .. folder .. "/a\\ b/\n", in_bash({ "mpreg", "call", "a.b", "@", path },
      "@" .. path, "mpreg call a.b @" .. path))
    assert.equal("docs/cli.md\n", in_bash({ "mpreg", "nodes", ">", "docs/cli" }, "docs/cli",
      "mpreg nodes > docs/cli"))
  end)

  --- A shell on a terminal of its own, ready for what is typed.
  local function on_terminal(command, setup)
    local shell = node.spawn("script", { "-qefc", command, "/dev/null" },
      { stdin = true, env = environment() })
    shell:write(setup .. "; echo re''ady\n")
    shell:wait_for("out", "(ready)")
    return shell
  end

  -- What is typed is echoed too: so what is awaited is not in it, and is never typed itself.
  local function expect_on_terminal(shell, typed, pattern)
    shell:write(typed)
    for i = 1, ATTEMPTS do
      local ok, problem = pcall(shell.wait_for, shell, "out", "(" .. pattern .. ")", 5)
      if ok then break end
      if i == ATTEMPTS then error(problem) end
      shell:write("\t")
    end
    shell:write("\21")
  end

  it("answers to the tab key of bash", function()
    local shell = on_terminal("bash --norc --noprofile -i", "source completion/mpreg.bash")
    expect_on_terminal(shell, "mpreg call hello.\t", "greet")
    expect_on_terminal(shell, "mpreg nodes --output=j\t", "json")
    expect_on_terminal(shell, "mpreg run x --input=@docs/cli\t", "%.md")
    shell:write("exit\n")
    assert.equal(0, shell:wait().code)
  end)

  it("answers to the tab key of zsh", function()
    if not has_program "zsh" then return pending("zsh is not installed") end
    local shell = on_terminal("zsh -f -i", "PS1='> '; fpath=($PWD/completion $fpath); "
      .. "autoload -Uz compinit && compinit -u -D")
    expect_on_terminal(shell, "mpreg call hello.\t", "greet")
    expect_on_terminal(shell, "mpreg nodes --output=j\t", "json")
    expect_on_terminal(shell, "mpreg run x --input=@docs/cli\t", "%.md")
    expect_on_terminal(shell, "mpreg call x @$FOLDER/a\t", "a\\ b")
    expect_on_terminal(shell, "mpreg status --o\t", "%-%-output")
    -- With their help.
    expect_on_terminal(shell, "mpreg run x --\t", "Print the run's id and leave it running")
    shell:write("exit\n")
    assert.equal(0, shell:wait().code)
  end)

  it("is there in fish", function()
    if not has_program "fish" then return pending("fish is not installed") end
    local function in_fish(line)
      local r = node.run("fish", { "--no-config", "-c",
        "source completion/mpreg.fish; complete -C " .. quoted(line) }, { env = environment() })
      assert.same({ 0, "" }, { r.code, r.err })
      return r.out
    end
    assert_soon("hello.greet\tGreets somebody.\n", in_fish, "mpreg call hello.")
    assert.truthy(in_fish("mpreg nodes --output=j"):find("^%-%-output=json\t?\n$"))
    assert.truthy(in_fish("mpreg run x --"):find("--detach\tPrint the run's id", 1, true))
    assert_soon(n.addr .. "\tn1, alive\n", in_fish, "mpreg nodes -n 127")
    assert.truthy(in_fish("mpreg node --load=docs/cli"):find("^%-%-load=docs/cli%.md"))
    assert.truthy(in_fish("mpreg call x @docs/cli"):find("^@docs/cli%.md"))
    assert.truthy(in_fish("mpreg node --data spec/su"):find("^spec/support/"))
    assert.equal("", in_fish "mpreg frob ")
  end)
end)
