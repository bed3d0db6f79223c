-- `mpreg dev` as a process: what it starts, what it tells, and that nothing stays behind.
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

describe("mpreg dev", function()
  local folder

  local function write(name, text)
    local file = assert(io.open(folder .. "/" .. name, "w"))
    file:write(text)
    file:close()
  end

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
  end)
  after_each(function()
    node.stop_all()
    os.execute("rm -r " .. folder)
  end)

  local function start(...)
    local dev = node.spawn(node.bin(), { "dev", folder, "-o", "json", ... })
    local ready = assert(codec.json_decode((dev:wait_for("out", '^({"event":"ready"[^\n]*)\n'))))
    return dev, ready.nodes
  end

  local function nothing_left(dev)
    node.eventually(function() return #dev:descendants() == 0 end, "the end of its nodes", 10)
  end

  it("starts nodes that are one cluster, and stops them on Ctrl-C", function()
    local dev, nodes = start()
    assert.equal(3, #nodes)
    for i, n in ipairs(nodes) do
      assert.equal("n" .. i, n.name)
      local r = node.mpreg({ "nodes", "-n", n.addr, "-o", "json" })
      assert.equal(0, r.code, r.err)
      assert.equal(3, #codec.json_decode(r.out).nodes)
    end
    dev:kill "sigint"
    assert.equal(130, dev:wait().code)
    nothing_left(dev)
  end)

  it("takes any port when 7400 is taken", function()
    -- Whoever has it: this one, or somebody else on this machine.
    local holder = node.launch { "--listen", "127.0.0.1:7400" }
    node.eventually(function() return holder:out() ~= "" or holder.code end, "port 7400")
    local dev, nodes = start("--nodes", "1")
    assert.is_true(nodes[1].addr ~= "127.0.0.1:7400")
    dev:kill "sigterm"
    assert.equal(143, dev:wait().code)
    nothing_left(dev)
    holder:destroy()
  end)

  it("leaves no process behind when it is killed", function()
    local dev, nodes = start("--nodes", "2")
    assert.equal(2, #nodes)
    assert.is_true(#dev:descendants() >= 4)
    dev:kill "sigkill"
    dev:wait()
    nothing_left(dev)
  end)

  it("tells of a node that ends, and ends with the last one", function()
    local dev, nodes = start("--nodes", "1")
    uv.kill(nodes[1].pid, "sigkill")
    dev:wait_for("err", "(n1 has ended %(signal 9%))")
    local r = dev:wait()
    assert.equal(1, r.code)
    assert.equal("NODE_LOST", codec.json_decode(r.out:match("([^\n]*)\n$")).error.reason)
    nothing_left(dev)
  end)

  it("goes on after a syntax error", function()
    write("a.lua", "return =")
    local dev = start("--nodes", "1")
    local line = dev:wait_for("out", '\n({"error"[^\n]*)\n')
    assert.equal("a.lua:1: unexpected symbol near '='", codec.json_decode(line).error.message)
    write("a.lua", "return {\n =")
    dev:wait_for("out", "(a.lua:2: unexpected symbol)")
    dev:kill "sigint"
    assert.equal(130, dev:wait().code)
    nothing_left(dev)
  end)

  it("serves what is saved, and the old version while there is an error", function()
    local module = 'local a = {}\nfunction a.f() return "%s" end\nreturn a\n'
    write("a.lua", module:format "one")
    local dev, nodes = start("--nodes", "2")
    dev:wait_for("out", '"module":"a"')
    local function expect(value)
      for _, n in ipairs(nodes) do
        assert.equal(value .. "\n", node.mpreg({ "call", "a.f", "-n", n.addr }).out)
      end
    end
    expect "one"
    write("a.lua", module:format "two")
    dev:wait_for("out", '"module":"a".-\n.*("module":"a")')
    expect "two"
    write("a.lua", 'local a = {}\nerror "broken"\n')
    local line = dev:wait_for("out", '\n({"error"[^\n]*)\n')
    assert.equal("a.lua:2: broken", codec.json_decode(line).error.message)
    expect "two"
    dev:kill "sigint"
    assert.equal(130, dev:wait().code)
    nothing_left(dev)
  end)

  it("serves a module and a pipeline of one name, with what nodes have", function()
    local dev, nodes = start("--nodes", "1", "--resource", "price=3")
    write("shop.lua", 'local mpreg = require "mpreg"\n'
      .. 'return { price = function() return mpreg.resource "price" end }\n')
    write("pipeline.lua", 'return require "mpreg".pipeline("shop", function(p)\n'
      .. '  return p "price" { "shop.price" }\nend)\n')
    node.eventually(function()
      return node.mpreg({ "run", "shop", "-n", nodes[1].addr, "-o", "json" }).code == 0
    end, "a run of the pipeline")
    dev:kill "sigint"
    assert.equal(130, dev:wait().code)
    nothing_left(dev)
  end)

  it("refuses what no node could be started with", function()
    local r = node.mpreg { "dev", folder, "--resource", "x={" }
    assert.equal(2, r.code, r.err)
    r = node.mpreg { "dev", folder .. "/none" }
    assert.equal(2, r.code, r.err)
  end)
end)
