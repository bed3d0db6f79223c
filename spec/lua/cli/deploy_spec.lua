-- Outputs stand here as they are.
-- luacheck: no max line length

local codec = require "mpreg.codec"
local commands = require "spec.support.commands"
local exit = require "mpreg.cli.exit"
local native = require "mpreg.native"

local A, B = ("3fa9c1d2"):rep(8), ("8a771b02"):rep(8)

local function live()
  return { modules = { { name = "quakes", version = "1.1.0", hash = B, origin = "deployed",
    live = true } } }
end

local function answer(extra)
  local value = { module = "quakes", version = "1.2.0", hash = A, previous = B, epoch = 1, ms = 4.5,
    nodes = { { node = "n1", state = "live", ms = 4.5 } } }
  value.modules = { { module = "quakes", version = "1.2.0", hash = A, previous = B,
    kind = "module" } }
  for key, field in pairs(extra or {}) do value[key] = field end
  return value
end

local function fails(code, reason)
  return function(what)
    if what == "modules" then return live() end
    return nil, { code = code, reason = reason, message = "so it is", node = "n2" }
  end
end

describe("cli.deploy", function()
  local folder
  local function write(name, text)
    local file = assert(io.open(folder .. "/" .. name, "w"))
    file:write(text)
    file:close()
    return folder .. "/" .. name
  end
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
    write("quakes.lua", "return { _VERSION = '1.2.0' }")
  end)
  after_each(function() os.execute("rm -r " .. folder) end)

  it("sends the unit, and says what came of it", function()
    local sent, query
    local r = commands.run("deploy", { folder }, function(what, options, payload)
      if what == "modules" then return live() end
      sent, query = payload, options
      return answer()
    end)
    assert.same({ 0, { "modules", "deploy" } }, { r.code, r.asked })
    assert.equal([[
deployed quakes 1.2.0 (3fa9c1d2), was 1.1.0 (8a771b02)

NODE  STATE    TIME
n1    live   4.5 ms
]], r.out)
    assert.same({ { "quakes", "return { _VERSION = '1.2.0' }" } }, sent)
    assert.same({ by = native.who() }, query)
    assert.truthy(query.by:find("^.+@"))
  end)

  it("tells the node what the flags say", function()
    local query
    local function take(what, options)
      if what == "modules" then return live() end
      query = options
      return answer()
    end
    commands.run("deploy", { folder, "--expect", "3FA9C1D2", "--only", "n1", "--only", "n2",
      "--force" }, take)
    assert.same({ by = native.who(), expect = "3fa9c1d2", only = { "n1", "n2" }, force = true },
      query)
    commands.run("deploy", { "--skip", "n3", "--expect", "none", "--", folder }, take)
    assert.same({ by = native.who(), expect = "none", skip = { "n3" } }, query)
  end)

  it("gives the document as it came, and asks nothing else", function()
    local r = commands.run("deploy", { folder, "-o", "json" }, function() return answer() end)
    assert.same({ 0, { "deploy" } }, { r.code, r.asked })
    assert.same(answer(), commands.document(r))
  end)

  it("refuses wrong flags and files before it asks anybody", function()
    local function refused(reason, ...)
      local r = commands.run("deploy", { ... }, error)
      assert.same({ 2, reason, {} }, { r.code, r.err.reason, r.asked or {} })
      return r.err.message
    end
    assert.equal("missing argument 'FILE|DIR'", refused("USAGE"))
    assert.equal("--only names the nodes, --skip all others: not both",
      refused("USAGE", folder, "--only", "n1", "--skip", "n2"))
    refused("USAGE", folder, "--only", "n 1")
    refused("USAGE", folder, "--expect", "xyz")
    refused("USAGE", folder, "--expect", "3fa9c1d")
    refused("USAGE", folder, "--watch", "--expect", A)
    refused("UNREADABLE", folder .. "/none.lua")
    refused("BAD_NAME", write("a b.lua", ""))
    refused("BAD_NAME", write("notes.txt", ""))
    refused("EMPTY_UNIT", assert(os.execute("mkdir " .. folder .. "/spec")) == 0 and folder
      .. "/spec")
  end)

  it("finds a syntax error itself, and says it as a node does", function()
    write("quakes.lua", "return {\n  x = = 1 }")
    local r = commands.run("deploy", { folder }, error)
    assert.same({ 1, {}, "" }, { r.code, r.asked, r.out })
    assert.same({ code = "INVALID_ARGUMENT", reason = "SYNTAX_ERROR",
      message = "quakes.lua:2: unexpected symbol near '='" }, r.err)
  end)

  it("fails with 1 when it is refused, whatever the code", function()
    for _, code in ipairs { "INVALID_ARGUMENT", "FAILED_PRECONDITION", "ALREADY_EXISTS", "NOT_FOUND",
      "INTERNAL", "RESOURCE_EXHAUSTED" } do
      local r = commands.run("deploy", { folder }, fails(code, "SOME"))
      assert.same({ 1, "SOME" }, { r.code, r.err.reason })
    end
    local codes = {
      { "UNAVAILABLE", "NO_NODE", 3 }, { "UNAVAILABLE", "DRAINING", 3 },
      { "UNAVAILABLE", "NODE_LOST", 1 }, { "UNAVAILABLE", "CONNECTION_LOST", 1 },
      { "UNAVAILABLE", "NOT_STAGED", 1 }, { "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", 4 },
      { "PERMISSION_DENIED", "POLICY", 5 }, { "CANCELLED", "INTERRUPTED", 130 },
      { "UNIMPLEMENTED", "UNKNOWN_QUERY", 2 }, { "INVALID_ARGUMENT", "BAD_OPTION", 2 },
      { "INVALID_ARGUMENT", "BAD_VERSION", 1 },
    }
    for _, case in ipairs(codes) do
      assert.equal(case[3], exit.of_deploy { code = case[1], reason = case[2] }, case[2])
    end
  end)
end)

describe("cli.rollback, cli.undeploy and cli.history", function()
  it("roll back", function()
    local query
    local r = commands.run("rollback", { "quakes", "--to", "1.1.0" }, function(what, options)
      if what == "modules" then return live() end
      query = options
      return answer { modules = { { module = "quakes", version = "1.0.0", hash = A,
        previous = B } } }
    end)
    assert.equal("rolled back quakes to 1.0.0 (3fa9c1d2), was 1.1.0 (8a771b02)",
      r.out:match("^[^\n]*"))
    assert.same({ 0, { module = "quakes", to = "1.1.0", by = native.who() } }, { r.code, query })
  end)

  it("undeploy", function()
    local r = commands.run("undeploy", { "quakes" }, function(what)
      if what == "modules" then return live() end
      return answer { version = codec.null, hash = codec.null, modules = codec.null }
    end)
    assert.equal("undeployed quakes, was 1.1.0 (8a771b02)", r.out:match("^[^\n]*"))
    assert.equal(0, r.code)
  end)

  it("fail with 1 when they are refused, and with 2 for a wrong name", function()
    for _, name in ipairs { "rollback", "undeploy" } do
      assert.equal(1, commands.run(name, { "quaks" }, fails("NOT_FOUND", "UNKNOWN_MODULE")).code)
      assert.equal(2, commands.run(name, { "a b" }, error).code)
      assert.equal(2, commands.run(name, {}, error).code)
    end
    assert.equal(3, commands.run("history", { "quaks" }, fails("NOT_FOUND", "UNKNOWN_MODULE")).code)
    assert.equal(2, commands.run("history", { "a..b" }, error).code)
  end)

  it("list a module's history, or give the document", function()
    local history = { module = "quakes", entries = { { epoch = 1, at = 0, action = "deploy",
      version = "1.2.0", hash = A, previous = codec.null, by = "ann@pc", node = "n1",
      state = "live" } } }
    local query
    local r = commands.run("history", { "quakes" }, function(_, options)
      query = options
      return history
    end)
    assert.truthy(r.out:find("  deploy  1.2.0    3fa9c1d2            ann@pc  n1    live\n", 1, true),
      r.out)
    assert.same({ 0, { module = "quakes" } }, { r.code, query })
    r = commands.run("history", { "quakes", "-o", "json" }, function() return history end)
    assert.same(history, commands.document(r))
  end)
end)
