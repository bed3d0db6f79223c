-- A node and commands in odd surroundings: closed files, full disks, a port that is taken, modules
-- that cannot be read, readers that go away.

local uv = require "luv"
local node = require "spec.support.node"

local GRAPH = [[{"name": "g", "steps": [
  {"name": "first", "call": "mpreg.echo", "args": [1]},
  {"name": "second", "call": "mpreg.sleep", "args": [0.05], "after": ["first"]}]}]]

--- Runs a line of shell in which $MPREG is the executable.
local function shell(line, env)
  env = env or {}
  env.MPREG = node.bin()
  return node.run("bash", { "-c", line }, { env = env })
end

local function no_trace(text)
  assert.is_nil(text:find("traceback", 1, true), text)
  assert.is_nil(text:find("%.lua:%d+:"), text)
end

describe("a node", function()
  after_each(node.stop_all)

  it("says that its port is taken, and by which address", function()
    local n = node.start()
    local r = node.mpreg { "node", "--listen", n.addr }
    assert.equal(1, r.code)
    assert.equal("", r.out)
    assert.is_truthy(r.err:find(n.addr, 1, true), r.err)
    assert.is_truthy(r.err:find("in use", 1, true), r.err)
    no_trace(r.err)
    assert.equal(0, n:mpreg({ "call", "mpreg.echo", 1 }).code)
    n:stop()
  end)

  it("refuses to load what is not there", function()
    local r = node.mpreg { "node", "--listen", "127.0.0.1:0", "--load", "/no/such/place" }
    assert.equal(2, r.code)
    assert.is_truthy(r.err:find("/no/such/place", 1, true), r.err)
    no_trace(r.err)
  end)

  it("names a module that cannot be read, and does not serve it", function()
    local folder = os.tmpname()
    os.remove(folder)
    assert(os.execute(("mkdir -p %s/dir.lua && ln -s /no/such/file %s/gone.lua && "
      .. "echo 'return { f = function() return 1 end }' > %s/good.lua"):format(
        folder, folder, folder)) == 0)
    local n = node.start { "--load", folder }
    assert.equal("1\n", n:mpreg({ "call", "good.f" }).out)
    assert.equal(3, n:mpreg({ "call", "gone.f" }).code)
    n:stop()
    os.execute("rm -rf " .. folder)
  end)

  it("waits with new connections when it has no descriptor left, without noise", function()
    local process = node.spawn("bash", { "-c", "ulimit -n 48; exec \"$MPREG\" node "
      .. "--listen 127.0.0.1:0 --workers 1" }, { env = { MPREG = node.bin() } })
    local host, port = process:wait_for("out", '"addr":"([^":]+):(%d+)"')
    local sockets, connected = {}, 0
    for i = 1, 60 do
      sockets[i] = uv.new_tcp()
      sockets[i]:connect(host, tonumber(port), function(err)
        connected = connected + (err and 0 or 1)
      end)
    end
    process:wait_for("err", "(no connection can be accepted)")
    node.eventually(function() return connected == 60 end, "60 connections, in its queue at least")
    for i = 1, 60 do sockets[i]:close() end
    local env = { MPREG_NODE = host .. ":" .. port }
    local r = node.mpreg({ "call", "mpreg.echo", 1 }, { env = env })
    assert.equal("1\n", r.out)
    local lines = select(2, process:err():gsub("no connection can be accepted", ""))
    assert.is_true(lines < 70, "told " .. lines .. " times")
    process:kill("sigterm")
    assert.equal(0, process:wait().code)
  end)

  for _, case in ipairs {
    { "stdin", "<&-" }, { "stderr", "2>&-" }, { "stdin and stderr", "<&- 2>&-" },
  } do
    it("serves with a closed " .. case[1], function()
      local process = node.spawn("bash", { "-c", 'exec "$MPREG" node --listen 127.0.0.1:0 '
        .. case[2] }, { env = { MPREG = node.bin() } })
      local addr = process:wait_for("out", '"addr":"([^"]+)"')
      for i = 1, 20 do
        local r = node.mpreg({ "call", "mpreg.echo", i }, { env = { MPREG_NODE = addr } })
        assert.equal(i .. "\n", r.out)
      end
      local r = node.mpreg({ "call", "mpreg.fail", "no" }, { env = { MPREG_NODE = addr } })
      assert.equal(1, r.code)
      process:kill("sigterm")
      assert.equal(0, process:wait().code)
      node.eventually(function() return #process:descendants() == 0 end, "the end of its workers")
    end)
  end
end)

describe("a command", function()
  local n

  setup(function() n = node.start() end)
  teardown(function()
    n:stop()
    node.stop_all()
  end)

  local function run(line)
    local r = shell(line, { MPREG_NODE = n.addr, GRAPH = GRAPH })
    no_trace(r.err)
    return r
  end

  it("ends without noise when its reader goes away", function()
    for _, command in ipairs {
      "functions", "functions -o json", "modules", "nodes", "call mpreg.echo 1",
    } do
      local r = run('"$MPREG" ' .. command .. ' | true; exit "${PIPESTATUS[0]}"')
      assert.is_true(r.code == 0 or r.code == 1, command)
      assert.equal("", r.err)
    end
    local r = run('"$MPREG" run - --follow -o json <<<"$GRAPH" | head -1; exit "${PIPESTATUS[0]}"')
    assert.is_true(r.code == 0 or r.code == 1)
    assert.is_truthy(r.out:find('"run_started"', 1, true))
    assert.equal("", r.err)
  end)

  it("fails when its output cannot be written", function()
    for _, command in ipairs { "functions", "call mpreg.echo 1", 'run - <<<"$GRAPH"' } do
      local r = run('"$MPREG" ' .. command .. " >/dev/full")
      assert.equal(1, r.code, command)
    end
  end)

  it("writes into nothing else when its files are closed", function()
    for _ = 1, 10 do
      assert.is_true(run('"$MPREG" call mpreg.echo 1 <&- >&- 2>&-').code <= 1)
      assert.is_true(run('"$MPREG" call mpreg.echo - <&-').code ~= 0)
    end
    assert.equal("1\n", n:mpreg({ "call", "mpreg.echo", 1 }).out)
  end)
end)
