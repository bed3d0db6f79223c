-- Deploys and what may happen meanwhile: a node is killed, a disk is full, a network is parted, a
-- module keeps its node busy. Machines that can be cut from each other are network namespaces, and
-- a full disk is a small tmpfs: as root; elsewhere these are pending, with the reason.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local netns = require "spec.support.netns"
local node = require "spec.support.node"
local uv = require "luv"

local SLOW = cluster.SLOW
local folder

local function write(name, text)
  local path = folder .. "/" .. name
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

local function versioned(version, body)
  return ("%s\nreturn { _VERSION = %q, version = function() return %q end }\n"):format(body or "",
    version, version)
end

local function json_of(r) return r.out ~= "" and assert(codec.json_decode(r.out), r.out) or {} end

local function deploy(n, path, ...)
  local r = n:mpreg { "deploy", path, "-o", "json", ... }
  return json_of(r), r.code, r
end

--- What a call of m.version says there; nil if it fails.
local function version_at(n)
  local r = n:mpreg { "call", "m.version", "-o", "json" }
  return r.code == 0 and json_of(r) or nil
end

local function history_at(n)
  return json_of(n:mpreg { "history", "m", "-o", "json" }).entries or {}
end

local function await_version(nodes, version, seconds)
  for _, n in pairs(nodes) do
    node.eventually(function() return version_at(n) == version end, version .. " on " .. n.name,
      (seconds or 20) * (SLOW > 1 and 2 or 1))
  end
end

before_each(function()
  folder = assert(uv.fs_mkdtemp((uv.os_tmpdir() or "/tmp") .. "/mpreg-spec-XXXXXX"))
end)

after_each(function()
  node.stop_all()
  os.execute("rm -r '" .. folder .. "'")
end)

describe("a node that is killed while a deploy is under way", function()
  for _, who in ipairs { "that was asked", "that was not asked" } do
    it("the one " .. who .. ": all agree when it is back", function()
      local n = {}
      local function launch(i)
        local flags = { "--name", "n" .. i, "--workers", "1", "--data", folder .. "/n" .. i,
          "--log-level", "warn" }
        for k = 1, 3 do
          if k ~= i and n[k] then flags[#flags + 1], flags[#flags + 2] = "--join", n[k].addr end
        end
        n[i] = node.start(flags)
      end
      for i = 1, 3 do launch(i) end
      node.eventually(function()
        local alive = 0
        for _, row in pairs(n[3]:members()) do alive = alive + (row.state == "alive" and 1 or 0) end
        return alive == 3
      end, "all three alive")
      local path = write("m.lua", versioned "1.0.0")
      assert.are.equal(0, select(2, deploy(n[1], path)))
      local victim = who == "that was asked" and 1 or 2
      -- It takes a while to load, so there is a middle.
      for round = 1, 3 do
        local version = ("1.%d.0"):format(round)
        write("m.lua", versioned(version, "local t = os.clock() + 0.1 while os.clock() < t do end"))
        local process = n[1]:spawn { "deploy", path, "--force", "-o", "json" }
        local timer = uv.new_timer()
        local is_time = false
        timer:start(40 * round, 0, function() is_time = true end)
        node.eventually(function() return is_time or process.code end, "the middle of the deploy")
        timer:close()
        n[victim]:kill "sigkill"
        n[victim]:wait(30)
        local r = process:wait(60)
        launch(victim)
        local live = version_at(n[3])
        if r.code == 0 then live = version end -- whoever was told so may count on it
        local versions = {}
        local ok, err = pcall(node.eventually, function()
          for i = 1, 3 do versions[i] = version_at(n[i]) or "none" end
          return versions[1] == versions[2] and versions[2] == versions[3]
            and (r.code ~= 0 or versions[1] == live)
        end, "one version on all nodes", 30 * (SLOW > 1 and 2 or 1))
        if not ok then
          local said = { err, "told " .. r.code .. ": " .. r.out }
          for i = 1, 3 do
            said[#said + 1] = ("n%d (ended %s) has %s\n%s%s%s"):format(i, tostring(n[i].code),
              versions[i], n[i]:err():sub(-2000), n[i]:mpreg({ "nodes" }).out,
              n[i]:mpreg({ "history", "m" }).out)
          end
          error(table.concat(said, "\n"), 0)
        end
        local first = #history_at(n[1])
        node.eventually(function()
          return #history_at(n[2]) == #history_at(n[3]) and #history_at(n[1]) == #history_at(n[3])
        end, "one history, after " .. first .. " entries", 20)
      end
      for i = 1, 3 do n[i]:stop() end
    end)
  end
end)

describe("a node whose disk is full", function()
  local mounted
  after_each(function()
    node.stop_all()
    if mounted then os.execute("umount -l '" .. mounted .. "'") end
    mounted = nil
  end)

  it("refuses a deploy, and says so; nothing changes anywhere, and the node lives", function()
    local small = folder .. "/small"
    assert(uv.fs_mkdir(small, tonumber("700", 8)))
    if os.execute(("mount -t tmpfs -o size=1m tmpfs '%s' 2>/dev/null"):format(small)) ~= 0 then
      return pending "a small tmpfs cannot be mounted here"
    end
    mounted = small
    local a = node.start { "--name", "a", "--workers", "1", "--log-level", "warn" }
    local b = node.start { "--name", "b", "--workers", "1", "--data", small .. "/data", "--join",
      a.addr, "--log-level", "error" }
    node.eventually(function() return a:members().b end, "b on a")
    local path = write("m.lua", versioned "1.0.0")
    assert.are.equal(0, select(2, deploy(a, path)))
    -- What does not compress, and is larger than the disk.
    local bytes = {}
    for i = 1, 200000 do bytes[i] = ("%08x"):format(i * 2654435761 % 4294967296) end
    write("m.lua", versioned("2.0.0", "--[[" .. table.concat(bytes) .. "]]"))
    local d, code, r = deploy(a, path)
    assert.are.equal(1, code, r.out .. r.err)
    assert.are.same({ "RESOURCE_EXHAUSTED", "DISK_FULL", "b" },
      { d.error.code, d.error.reason, d.error.node })
    assert.are.equal("1.0.0", version_at(a))
    assert.are.equal("1.0.0", version_at(b))
    assert.are.equal(1, #history_at(a))
    write("m.lua", versioned "1.1.0")
    local _, again, said = deploy(b, path)
    assert.are.equal(0, again, said.out .. said.err)
    await_version({ a, b }, "1.1.0")
    b:stop()
    a:stop()
  end)
end)

describe("two halves of a parted network", function()
  local why = netns.missing()
  local net
  after_each(function()
    node.stop_all()
    if net then net:close() end
    net = nil
  end)

  it("deploy each for itself; when they meet the later one wins, the other is overtaken", function()
    if why then return pending(why) end
    net = netns.open { "a", "b" }
    local a = net:start("a", { "--workers", "1", "--log-level", "error" })
    local b = net:start("b", { "--workers", "1", "--log-level", "error", "--join", net:at "a" })
    node.eventually(function() return a:members().b and b:members().a end, "both")
    local path = write("m.lua", versioned "1.0.0")
    assert.are.equal(0, select(2, deploy(a, path)))
    net:cut("a", "b")
    node.eventually(function()
      local list = a:members()
      return list.b and list.b.state == "dead"
    end, "b dead", 30)
    node.eventually(function()
      local list = b:members()
      return list.a and list.a.state == "dead"
    end, "a dead", 30)
    write("m.lua", versioned "1.1.0")
    local first, code, r = deploy(a, path)
    assert.are.equal(0, code, r.out .. r.err)
    write("m.lua", versioned "1.2.0")
    local second
    second, code, r = deploy(b, path)
    assert.are.equal(0, code, r.out .. r.err)
    assert.is_true(second.epoch > first.epoch)
    assert.are.same({ "1.1.0", "1.2.0" }, { version_at(a), version_at(b) })
    net:heal("a", "b")
    await_version({ a, b }, "1.2.0", 90)
    for _, n in ipairs { a, b } do
      node.eventually(function() return #history_at(n) == 3 end, "the whole history on " .. n.name)
      local states = {}
      for _, e in ipairs(history_at(n)) do states[e.version] = e.state end
      assert.are.same({ ["1.0.0"] = "superseded", ["1.1.0"] = "overtaken", ["1.2.0"] = "live" },
        states)
      local marked
      for _, m in ipairs(json_of(n:mpreg { "modules", "-o", "json" }).modules) do
        if m.name == "m" then marked = m.overtaken end
      end
      assert.is_true(marked)
    end
  end)
end)

describe("a function that computes", function()
  it("delays no deploy; a module with an endless loop at load delays no call", function()
    local n = node.start { "--workers", "2", "--log-level", "error" }
    local computing = "local function busy(s) local t = os.clock() + s "
      .. "while os.clock() < t do end return 'done' end"
    local source = versioned("1.0.0", computing):gsub("return {", "return { busy = busy,")
    local path = write("m.lua", source)
    assert.are.equal(0, select(2, deploy(n, path)))
    local busy = n:spawn { "call", "m.busy", 5, "-o", "json", "-t", "60s" }
    node.eventually(function()
      return json_of(n:mpreg { "status", "-o", "json" }).workers[1].begun == 1
        or json_of(n:mpreg { "status", "-o", "json" }).workers[2].begun == 1
    end, "the busy call")
    write("m.lua", versioned "1.1.0")
    local d, code, r = deploy(n, path)
    assert.are.equal(0, code, r.out .. r.err)
    assert.is_true(d.ms < 1500 * SLOW, d.ms .. " ms")
    assert.are.equal("1.1.0", version_at(n))
    assert.is_nil(busy.code) -- it goes on, with what it began with
    local loop = write("loop.lua", "while true do end")
    local process = n:spawn { "deploy", loop, "-o", "json" }
    local calls = 0
    while not process.code do
      assert.are.equal("1.1.0", version_at(n))
      calls = calls + 1
    end
    local refused = process:wait()
    assert.are.equal(1, refused.code)
    assert.are.equal("LOAD_TIMEOUT", json_of(refused).error.reason)
    assert.is_true(calls > 10 / SLOW, calls .. " calls")
    assert.are.equal(0, busy:wait(60).code)
    n:stop()
  end)
end)
