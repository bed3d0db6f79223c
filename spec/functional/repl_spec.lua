local codec = require "mpreg.codec"
local node = require "spec.support.node"

describe("mpreg repl without a terminal", function()
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
    n = node.start { "--name", "n1", "--workers", "1", "--load", "examples/hello" }
  end)

  teardown(function()
    local ok, err = pcall(n.stop, n)
    node.stop_all()
    os.execute("rm -r " .. folder)
    assert(ok, err)
  end)

  --- Runs it and checks its exit code.
  local function run(code, args, opts)
    table.insert(args, 1, "repl")
    local r = n:mpreg(args, opts)
    assert.are.equal(code, r.code, ("mpreg %s\nstdout: %s\nstderr: %s"):format(
      table.concat(args, " "), r.out, r.err))
    return r
  end

  local function error_of(r) return assert(codec.json_decode(r.out)).error end

  describe("-e", function()
    it("prints each value on a line of its own", function()
      assert.are.equal("2\n", run(0, { "-e", "1 + 1" }).out)
      assert.are.equal("1\n\"a\\nb\"\nnil\n", run(0, { "-e", "return 1, 'a\\nb', nil" }).out)
      local list = run(0, { "-e", "local t = {} for i = 1, 300 do t[i] = i end return { t }" }).out
      assert.are.equal(1, select(2, list:gsub("\n", "")))
      assert.truthy(list:find(", 300 } }\n", 1, true))
    end)

    it("prints nothing for statements", function()
      local r = run(0, { "-e", "x = 5" })
      assert.are.same({ "", "" }, { r.out, r.err })
    end)

    it("gives what the code prints before its values", function()
      local r = run(0, { "-e", "print('a', 1) io.write('b\\n') return 'c'" })
      assert.are.same({ "a\t1\nb\n\"c\"\n", "" }, { r.out, r.err })
    end)

    it("knows the functions of the cluster", function()
      assert.are.equal('"Hello, you!"\n', run(0, { "-e", "hello.greet('you')" }).out)
      assert.are.equal('"n1"\n', run(0, { "-e", "mpreg.node().name" }).out)
    end)

    it("refuses what is no Lua", function()
      local r = run(2, { "-e", "x = = 1" })
      assert.are.equal("", r.out)
      assert.truthy(r.err:find("^error: INVALID_ARGUMENT/SYNTAX_ERROR: repl:1: "))
    end)

    it("fails with what the code raises, whatever its code", function()
      local r = run(1, { "-e", "print 'before' error('no way')" })
      assert.are.equal("before\n", r.out)
      assert.truthy(r.err:find("error: UNKNOWN/FUNCTION_ERROR: .*no way\n  at repl:1"), r.err)
      r = run(1, { "-e", "mpreg.call('no.such')" })
      assert.truthy(r.err:find("^error: NOT_FOUND/UNKNOWN_FUNCTION: "))
    end)
  end)

  describe("-o json", function()
    it("gives each value as a line of JSON, and what is printed to stderr", function()
      local r = run(0, { "-o", "json", "-e",
        "print 'p' return 1, 'x', nil, { b = 1, a = { true } }" })
      assert.are.equal('1\n"x"\nnull\n{"a":[true],"b":1}\n', r.out)
      assert.are.equal("p\n", r.err)
      assert.are.equal("", run(0, { "-o", "json", "-e", "x = 1" }).out)
    end)

    it("fails for a value that has no JSON", function()
      assert.are.equal("UNENCODABLE", error_of(run(1, { "-o", "json", "-e", "print" })).reason)
      assert.are.equal("UNENCODABLE", error_of(run(1, { "-o", "json", "-e", "0/0" })).reason)
    end)

    it("gives errors as every command does", function()
      local err = error_of(run(1, { "-o", "json", "-e", "error 'x'" }))
      assert.are.same({ "UNKNOWN", "FUNCTION_ERROR" }, { err.code, err.reason })
      assert.are.equal("SYNTAX_ERROR", error_of(run(2, { "-o", "json", "-e", "1 1" })).reason)
    end)
  end)

  describe("a file", function()
    it("is run as a whole, under its name", function()
      local path = write("check.lua", "#!/usr/bin/env mpreg\nlocal x = 20\nreturn x + 1, ...\n")
      assert.are.equal("21\n", run(0, { path }).out)
      path = write("bad.lua", "local x = 1\n\nerror 'oops'\n")
      assert.truthy(run(1, { path }).err:find("bad.lua:3", 1, true))
      assert.is_nil(run(1, { path }).err:find(folder, 1, true))
      path = write("wrong.lua", "local x =\n")
      assert.truthy(run(2, { path }).err:find("SYNTAX_ERROR: wrong.lua:", 1, true))
    end)

    it("must be there, and alone", function()
      assert.truthy(run(2, { folder .. "/none.lua" }).err:find("cannot read", 1, true))
      assert.truthy(run(2, { "-e", "1", "x.lua" }).err:find("not both", 1, true))
    end)
  end)

  describe("stdin", function()
    it("is read whole and run as one chunk", function()
      local r = run(0, {}, { stdin = "local x = 4\nlocal y = x + 1\nreturn x, y\n" })
      assert.are.equal("4\n5\n", r.out)
      assert.are.equal("3\n", run(0, { "-" }, { stdin = "1 + 2\n" }).out)
      assert.are.equal("", run(0, {}, { stdin = "" }).out)
      assert.truthy(run(2, {}, { stdin = "local x = 1\nx = = 2\n" }).err:find("stdin:2:", 1, true))
    end)

    it("has no commands", function()
      run(2, {}, { stdin = ":nodes\n" })
    end)
  end)

  it("says when there is no node, and when time is up", function()
    local r = node.mpreg { "repl", "-e", "1", "-n", "127.0.0.1:1" }
    assert.are.equal(3, r.code)
    assert.truthy(r.err:find("UNAVAILABLE/NO_NODE", 1, true))
    r = run(4, { "-t", "200ms", "-e", "mpreg.sleep(30)" })
    assert.truthy(r.err:find("DEADLINE_EXCEEDED", 1, true))
    run(4, { "-t", "200ms", "-e", "while true do end" })
  end)

  it("is interrupted, wherever it is", function()
    for _, code in ipairs { "print 'go' mpreg.sleep(30)", "print 'go' while true do end",
      "print 'go' pcall(function() while true do end end) return 5" } do
      local process = n:spawn { "repl", "-e", code }
      process:wait_for("out", "go\n")
      process:kill "sigint"
      local r = process:wait()
      assert.are.same({ 130, "go\n" }, { r.code, r.out }, code)
      assert.truthy(r.err:find("CANCELLED/INTERRUPTED", 1, true))
    end
  end)

  it("fails when the node goes", function()
    local other = node.start { "--name", "other", "--workers", "1" }
    local process = other:spawn { "repl", "-e", "print 'go' mpreg.sleep(30)" }
    process:wait_for("out", "go\n")
    other:kill "sigkill"
    local r = process:wait()
    assert.are.equal(1, r.code)
    assert.truthy(r.err:find("UNAVAILABLE/CONNECTION_LOST", 1, true))
    other:destroy()
  end)

  it("stops when nobody reads", function()
    local r = n:mpreg({ "repl", "-e", "for i = 1, 1e9 do print(i) end" }, { closed_stdout = true })
    assert.are.equal(1, r.code)
  end)
end)
