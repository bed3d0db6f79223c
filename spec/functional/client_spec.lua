local client = require "mpreg.client"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local pipeline = require "mpreg.pipeline"

describe("mpreg.client", function()
  local n, c

  setup(function()
    n = node.start { "--name", "n1", "--workers", "2", "--load", "examples/hello" }
    c = assert(client.connect { nodes = { n.addr }, timeout = "10s" })
  end)

  teardown(function()
    c:close()
    local ok, err = pcall(n.stop, n)
    node.stop_all()
    assert(ok, err)
  end)

  it("calls with Lua values", function()
    assert.are.equal("Hello, you!", c:call("hello.greet", "you"))
    assert.are.same({ 1, { a = true } }, c:call("mpreg.echo", { 1, { a = true } }))
    assert.are.equal(9007199254740993LL, c:call("mpreg.echo", 9007199254740993LL))
    assert.is_true(codec.is_array(c:call("mpreg.echo", codec.array {})))
    local result, err = c:call "mpreg.echo"
    assert.are.same({ nil, nil }, { result, err })
    assert.are.equal(n.addr, c:node())
  end)

  it("gives failures as nil and an ERROR", function()
    local result, err = c:call("mpreg.fail", "oops")
    assert.is_nil(result)
    assert.are.same({ "UNKNOWN", "FUNCTION_ERROR", "oops" }, { err.code, err.reason, err.message })
    assert.are.equal("UNKNOWN/FUNCTION_ERROR: oops", tostring(err))
    result, err = c:call("mpreg.echo", 1, { x = { print } })
    assert.is_nil(result)
    assert.are.same({ "INVALID_ARGUMENT", "UNENCODABLE",
      "argument 2.x[1]: a function cannot be sent" }, { err.code, err.reason, err.message })
  end)

  it("takes options", function()
    local _, err = c:with { timeout = "50ms" }:call("mpreg.sleep", 30)
    assert.are.equal("DEADLINE_EXCEEDED", err.code)
    _, err = c:with { needs = { "gpu" } }:call("mpreg.echo", 1)
    assert.are.equal("UNSATISFIABLE", err.reason)
    assert.are.equal(1, (c:with { on = "n1", version = "^1", retries = 1 }:call("mpreg.echo", 1)))
    assert.has_error(function() c:with { timeout = "soon" } end)
  end)

  it("evaluates Lua in a session", function()
    local said = {}
    local result = assert(c:eval("x = 5 print 'hi' return x, 'a'", {
      values = true, name = "spec", on_output = function(text) said[#said + 1] = text end,
    }))
    assert.are.same({ count = 2, text = { "5", '"a"' }, values = { 5, "a" } }, result)
    assert.are.equal("hi\n", table.concat(said))
    assert.are.same({ "6" }, c:eval("x + 1").text)
    local none, err = c:eval("error 'no'", { name = "spec" })
    assert.is_nil(none)
    assert.are.equal("FUNCTION_ERROR", err.reason)
    none, err = c:eval("while true do end", { timeout = "100ms" })
    assert.is_nil(none)
    assert.are.same({ "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED" }, { err.code, err.reason })
    assert.are.same({ "5" }, c:eval("x").text)
    assert.are.same({ from = 7, names = { "greet" } }, c:complete("hello.g"))
    assert.is_true(c:is_open())
  end)

  it("runs pipelines, graphs and watches them", function()
    local twice = pipeline.new("twice", function(p, input)
      local a = p "a" { "mpreg.echo", input.x }
      return { p "b" { "mpreg.echo", a }, input.x }
    end, { input = { x = 1 } })
    local run = assert(c:run(twice))
    assert.are.same({ "succeeded", { 1, 1 } }, { run.status, run.output })
    local events = {}
    run = assert(c:run(twice, { input = { x = "y" }, trace = true,
      on_event = function(event) events[#events + 1] = event.event end }))
    assert.are.same({ { "y", "y" }, 2 }, { run.output, #run.levels })
    assert.are.same({ "run_started", "run_finished" }, { events[1], events[#events] })
    run = assert(c:run({ steps = { { name = "a", call = "mpreg.fail", args = { "no" } } } }))
    assert.are.equal("failed", run.status)
    local none, err = c:run { steps = {} }
    assert.is_nil(none)
    assert.are.equal("EMPTY_GRAPH", err.reason)
    none, err = c:run "unknown"
    assert.is_nil(none)
    assert.are.equal("NOT_FOUND", err.code)
  end)

  it("asks", function()
    assert.are.equal("n1", c:query("nodes").nodes[1].name)
    assert.are.equal("n1", c:query("nodes", nil, { timeout = "5s" }).nodes[1].name)
    local none, err = c:query "nonsense"
    assert.is_nil(none)
    assert.are.equal("UNKNOWN_QUERY", err.reason)
  end)

  it("says when no node is there", function()
    local none, err = client.connect { nodes = { "127.0.0.1:1" } }
    assert.is_nil(none)
    assert.are.same({ "UNAVAILABLE", "NO_NODE" }, { err.code, err.reason })
  end)
end)
