-- Code on live nodes: what `mpreg deploy`, `rollback`, `undeploy`, `history` and `modules` do to a
-- cluster that has calls under way, and that a change which fails changes nothing anywhere.

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

local c
local folder

local function write(name, text)
  local path = folder .. "/" .. name
  for at in name:gmatch "()/" do
    uv.fs_mkdir(folder .. "/" .. name:sub(1, at - 1), tonumber("700", 8))
  end
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  return path
end

local function start(count, defs)
  c = cluster.start("mesh", defs or count or 3)
  folder = c.folder .. "/code"
  assert(uv.fs_mkdir(folder, tonumber("700", 8)))
end

after_each(function()
  if c then c:close() end
  c = nil
  node.stop_all()
end)

--- Runs a command at the first node, or the one at `at`; its document, exit code.
local function mpreg(args, at)
  args[#args + 1], args[#args + 2] = "-o", "json"
  local r = c[at or 1]:mpreg(args)
  local document = r.out ~= "" and assert(codec.json_decode(r.out)) or nil
  return document, r.code, r
end

--- Deploys and expects it to work.
local function deploy(args, at)
  if type(args) == "string" then args = { args } end
  local document, code, r = mpreg({ "deploy", unpack(args) }, at)
  assert.are.equal(0, code, r.out .. r.err)
  return document
end

--- Deploys and expects a refusal; its ERROR.
local function refuse(args, expected)
  if type(args) == "string" then args = { args } end
  local document, code, r = mpreg { "deploy", unpack(args) }
  assert.are.equal(expected or 1, code, r.out .. r.err)
  return document.error
end

local function versioned(version, body)
  return ([[
--- A module of the specs.
local mpreg = require "mpreg"
local m = { _VERSION = "%s" }

--- Its version.
---@return string
function m.version() return "%s" end
function m.where() return mpreg.node().name end
%s
return m
]]):format(version, version, body or "")
end

local function live(document, name)
  for _, m in ipairs(document.modules) do
    if m.name == name and m.origin == "deployed" and m.live then return m end
  end
end

local function history(name, at)
  local document, code = mpreg({ "history", name }, at)
  assert.are.equal(0, code)
  return document.entries
end

local function on_all(fun, expected)
  for i = 1, #c do
    if not c[i].code then assert.are.equal(expected, c:result(i, fun), "n" .. i) end
  end
end

describe("a deploy", function()
  it("is live on every node when the command returns", function()
    start(3)
    local d = deploy(write("m.lua", versioned "1.0.0"))
    assert.are.equal("m", d.module)
    assert.are.equal("1.0.0", d.version)
    assert.is_true(d.hash:find("^%x+$") ~= nil and #d.hash == 64)
    assert.are.equal(codec.null, d.previous)
    assert.is_true(d.epoch > 1.7e15 and d.ms > 0)
    assert.are.equal(3, #d.nodes)
    for i, n in ipairs(d.nodes) do
      assert.are.same({ "n" .. i, "live" }, { n.node, n.state })
    end
    on_all("m.version", "1.0.0")
    local m = live(c:client(2):query "modules", "m")
    assert.are.same({ "n1", "n2", "n3" }, m.nodes)
    assert.are.equal(d.hash, m.hash)
    for _, f in ipairs(c:client(3):query("functions").functions) do
      if f.name == "m.version" then
        assert.are.equal("Its version.", f.doc)
        assert.are.equal(3, #f.nodes)
      end
    end
  end)

  it("of a new version is what new calls get, everywhere; calls that run keep theirs", function()
    start(3)
    local path = write("m.lua", versioned("1.0.0", [[
function m.slow(path)
  mpreg.sleep(1)
  return m.version()
end]]))
    local first = deploy(path)
    local slow = {}
    for i = 1, 3 do slow[i] = c:client(i):call("m.slow", {}) end
    write("m.lua", versioned "1.1.0")
    local second = deploy(path, 2)
    assert.are.equal(first.hash, second.previous)
    on_all("m.version", "1.1.0")
    for i = 1, 3 do assert.are.equal("1.0.0", c:client(i):result(slow[i])) end
    assert.are.equal("NOT_FOUND/UNKNOWN_FUNCTION", c:answer(1, "m.slow").code)
    local entries = history("m", 3)
    assert.are.same({ "1.1.0", "live", "n2" },
      { entries[1].version, entries[1].state, entries[1].node })
    assert.are.same({ "1.0.0", "superseded", "n1" },
      { entries[2].version, entries[2].state, entries[2].node })
  end)

  it("is rolled back, one further each time, or to a version", function()
    start(2)
    for _, v in ipairs { "1.0.0", "1.1.0", "2.0.0" } do
      deploy(write("m.lua", versioned(v)))
    end
    local d, code = mpreg { "rollback", "m" }
    assert.are.equal(0, code)
    assert.are.equal("1.1.0", d.version)
    on_all("m.version", "1.1.0")
    d = mpreg({ "rollback", "m" }, 2)
    assert.are.equal("1.0.0", d.version)
    on_all("m.version", "1.0.0")
    d, code = mpreg { "rollback", "m" }
    assert.are.equal(1, code)
    assert.are.equal("NO_PREVIOUS", d.error.reason)
    d = mpreg { "rollback", "m", "--to", "2.0.0" }
    assert.are.equal("2.0.0", d.version)
    on_all("m.version", "2.0.0")
    local actions = {}
    for i, e in ipairs(history("m", 2)) do actions[i] = e.action end
    assert.are.same({ "rollback", "rollback", "rollback", "deploy", "deploy", "deploy" }, actions)
  end)

  it("shadows what nodes have loaded, until it is undeployed", function()
    start(nil, { { sources = { m = versioned "0.5.0" } }, {} })
    on_all("m.version", "0.5.0")
    deploy(write("m.lua", versioned "1.0.0"), 2)
    on_all("m.version", "1.0.0")
    local shadowed
    for _, m in ipairs(c:client(2):query("modules").modules) do
      if m.name == "m" and m.origin == "loaded" then shadowed = m end
    end
    assert.is_true(shadowed.shadowed)
    assert.is_false(shadowed.live)
    local d, code = mpreg { "undeploy", "m" }
    assert.are.equal(0, code)
    assert.are.equal(codec.null, d.version)
    on_all("m.version", "0.5.0")
    assert.are.equal("undeploy", history("m", 2)[1].action)
    d, code = mpreg({ "undeploy", "m" }, 2)
    assert.are.same({ 1, "NOT_DEPLOYED" }, { code, d.error.reason })
    mpreg({ "rollback", "m" }, 2)
    on_all("m.version", "1.0.0")
  end)

  it("of a folder is one unit: its parts require one another, a pipeline runs", function()
    start(3)
    write("bundle/parts/text.lua", [[
local text = { _VERSION = "1.0.0" }
function text.loud(s) return s:upper() .. "!" end
return text
]])
    write("bundle/greet.lua", [[
local loud = require("parts.text").loud
local greet = { _VERSION = "1.0.0" }
function greet.hello(name) return loud("hello " .. name) end
return greet
]])
    write("bundle/welcome.lua", [[
local mpreg = require "mpreg"
return mpreg.pipeline("welcome", function(p, input)
  local a = p "one" { "greet.hello", input.name }
  return { text = p "two" { "parts.text.loud", a } }
end)
]])
    write("bundle/greet_spec.lua", "error 'specs are passed over'")
    local d = deploy(folder .. "/bundle")
    local kinds = {}
    for _, m in ipairs(d.modules) do kinds[m.module] = m.kind end
    assert.are.same({ greet = "module", ["parts.text"] = "module", welcome = "pipeline" }, kinds)
    assert.are.equal("HELLO YOU!", c:result(2, "greet.hello", { "you" }))
    local r = c[3]:mpreg { "run", "welcome", "--input", '{"name":"you"}', "-o", "json" }
    assert.are.equal(0, r.code, r.err)
    assert.are.equal("HELLO YOU!!", assert(codec.json_decode(r.out)).output.text)
  end)

  it("of a module and a pipeline of one name is rolled back and undeployed as one", function()
    start(2)
    local function release(version)
      write("shop/shop.lua", versioned(version))
      write("shop/pipeline.lua", ([[
local mpreg = require "mpreg"
return mpreg.pipeline("shop", function(p)
  return { version = p "one" { "shop.version" }, pipeline = "%s" }
end)
]]):format(version))
      return deploy(folder .. "/shop")
    end
    local function run()
      local r = c[2]:mpreg { "run", "shop", "-o", "json" }
      return r.code == 0 and assert(codec.json_decode(r.out)).output or r.code
    end
    release "1.0.0"
    local d = release "1.1.0"
    local kinds = {}
    for _, m in ipairs(d.modules) do kinds[m.kind] = m.module end
    assert.are.same({ module = "shop", pipeline = "shop" }, kinds)
    assert.are.same({ version = "1.1.0", pipeline = "1.1.0" }, run())
    d = mpreg { "rollback", "shop" }
    assert.are.equal(2, #d.modules)
    assert.are.same({ version = "1.0.0", pipeline = "1.0.0" }, run())
    assert.are.equal(6, #history("shop", 2))
    d = mpreg({ "undeploy", "shop" }, 2)
    assert.are.equal(2, #d.modules)
    assert.are.equal(3, run())
    assert.are.equal("NOT_FOUND/UNKNOWN_FUNCTION", c:answer(1, "shop.version").code)
    mpreg { "rollback", "shop" }
    assert.are.same({ version = "1.0.0", pipeline = "1.0.0" }, run())
  end)

  it("or a loaded file is the source that a node tells", function()
    start(nil, { { sources = { m = versioned "0.5.0" } }, {} })
    local s = c:client(1):query("source", { module = "m" })
    assert.are.same({ "m", "0.5.0", versioned "0.5.0" }, { s.module, s.version, s.source })
    assert.is_true(s.hash:find("^%x+$") ~= nil and #s.hash == 64)
    local answer = c:client(2):wait(c:client(2):ask("source", { module = "m" }))
    assert.are.equal("NOT_FOUND/NOT_DEPLOYED", answer.code)
    assert.truthy(answer.error.hint:find "mpreg modules")
    local d = deploy(write("m.lua", versioned "1.0.0"))
    for i = 1, 2 do
      s = c:client(i):query("source", { module = "m" })
      assert.are.same({ "m", "1.0.0", d.hash, versioned "1.0.0" },
        { s.module, s.version, s.hash, s.source })
    end
  end)

  it("goes only where it is told, and everywhere later", function()
    start(3)
    local path = write("m.lua", versioned "1.0.0")
    deploy(path)
    write("m.lua", versioned "2.0.0")
    local d = deploy { path, "--only", "n2" }
    assert.are.equal(1, #d.nodes)
    for i, version in ipairs { "1.0.0", "2.0.0", "1.0.0" } do
      assert.are.equal(version, c:result(i, "m.version"))
    end
    assert.are.equal("n2", c:result(2, "m.where"))
    deploy(path)
    on_all("m.version", "2.0.0")
    write("m.lua", versioned "3.0.0")
    d = deploy { path, "--skip", "n1" }
    assert.are.equal(2, #d.nodes)
    for i, version in ipairs { "2.0.0", "3.0.0", "3.0.0" } do
      assert.are.equal(version, c:result(i, "m.version"))
    end
    assert.are.equal("NO_NODE", refuse({ path, "--only", "n7" }, 3).reason)
  end)
end)

describe("a deploy that fails changes nothing", function()
  local path
  before_each(function()
    start(3)
    path = write("m.lua", versioned "1.0.0")
    deploy(path)
  end)

  local function unchanged()
    on_all("m.version", "1.0.0")
    for i = 1, 3 do assert.are.equal(1, #history("m", i)) end
  end

  it("and says file and line: syntax, error and endless loop at load, a missing module", function()
    write("m.lua", "local m = {}\nfunction m.f( return 1 end\nreturn m\n")
    local e = refuse(path)
    assert.are.equal("INVALID_ARGUMENT/SYNTAX_ERROR", e.code .. "/" .. e.reason)
    assert.is_truthy(e.message:find("m.lua:2", 1, true), e.message)
    write("m.lua", "local m = {}\n\nerror 'no luck'\n")
    e = refuse(path)
    assert.are.equal("LOAD_ERROR", e.reason)
    assert.is_truthy(e.message:find("m.lua:3", 1, true) and e.message:find "no luck", e.message)
    assert.are.equal("n1", e.node)
    write("m.lua", "local n = 0\nwhile true do\n  n = n + 1\nend\n")
    local began = uv.hrtime()
    e = refuse(path)
    assert.are.equal("LOAD_TIMEOUT", e.reason)
    assert.is_truthy(e.message:find "m%.lua:[23]", e.message)
    assert.is_true((uv.hrtime() - began) / 1e9 < 4 * cluster.SLOW)
    write("m.lua", "local nowhere = require 'nowhere.at.all'\nreturn {}\n")
    e = refuse(path)
    assert.is_truthy(e.message:find("nowhere.at.all", 1, true), e.message)
    unchanged()
  end)

  it("and says why: a version that is used, a lower one, an expectation that does not hold",
    function()
    write("m.lua", versioned("1.0.0", "-- other bytes"))
    local e = refuse(path)
    assert.are.equal("ALREADY_EXISTS/VERSION_REUSED", e.code .. "/" .. e.reason)
    write("m.lua", versioned "0.9.0")
    e = refuse(path)
    assert.are.equal("FAILED_PRECONDITION/VERSION_LOWER", e.code .. "/" .. e.reason)
    write("m.lua", versioned "1.1.0")
    e = refuse { path, "--expect", ("0"):rep(64) }
    assert.are.equal("FAILED_PRECONDITION/EXPECTATION_FAILED", e.code .. "/" .. e.reason)
    unchanged()
    local d = deploy { path, "--expect", live(c:client(1):query "modules", "m").hash }
    assert.are.equal("1.1.0", d.version)
  end)

  it("unless it is forced: then it has the first digits of its hash", function()
    write("m.lua", versioned("0.9.0", "-- older"))
    local d = deploy { path, "--force" }
    assert.are.equal("0.9.0+" .. d.hash:sub(1, 8), d.version)
    on_all("m.version", "0.9.0")
    assert.are.equal("0.9.0", c:result(2, "m.version", {}, { version = "0.9.0" }))
    write("m.lua", "return { f = function() return 'bare' end }\n")
    d = deploy { path, "--force" }
    assert.are.equal("0.0.0+" .. d.hash:sub(1, 8), d.version)
    on_all("m.f", "bare")
  end)

  it("but the same content again is no failure and no change", function()
    local d = deploy(path, 2)
    assert.is_true(d.unchanged)
    unchanged()
  end)
end)

describe("a node that misses a deploy", function()
  it("because it is down has it when it is back", function()
    start(nil, { {}, {}, {} })
    local path = write("m.lua", versioned "1.0.0")
    deploy(path)
    c:kill(3)
    c:await_state(1, 3, "dead")
    write("m.lua", versioned "1.1.0")
    local d = deploy(path)
    assert.are.equal("behind", d.nodes[3].state)
    on_all("m.version", "1.1.0")
    c:restart(3, { 1 })
    node.eventually(function() return c:answer(3, "m.version").result == "1.1.0" end, "1.1.0 on n3")
    assert.are.equal(2, #history("m", 3))
  end)

  it("because it stands still does not block it for long, and catches up", function()
    start(3)
    local path = write("m.lua", versioned "1.0.0")
    deploy(path)
    c[3]:kill "sigstop"
    c:await_state(1, 3, "dead")
    write("m.lua", versioned "1.1.0")
    local d = deploy(path)
    assert.are.equal("behind", d.nodes[3].state)
    c[3]:kill "sigcont"
    node.eventually(function() return c:result(3, "m.version") == "1.1.0" end, "1.1.0 on n3", 30)
  end)

  it("keeps what is live in its data folder, alone too", function()
    local data = (uv.os_tmpdir() or "/tmp") .. "/mpreg-spec-data-" .. uv.hrtime()
    start(nil, { { flags = { "--data", data } } })
    deploy(write("m.lua", versioned "1.2.3"))
    c:kill(1)
    c:restart(1, {})
    assert.are.equal("1.2.3", c:result(1, "m.version")) -- the first call after `ready`
    assert.are.equal(1, #history("m"))
    c:close()
    c = nil
    for _, name in ipairs { "mpreg.db", "mpreg.db-wal", "mpreg.db-shm" } do
      os.remove(data .. "/" .. name)
    end
  end)
end)

describe("deploys and calls at once", function()
  it("fail no call, and no run sees two versions", function()
    start(nil, { { workers = 1 }, { workers = 1 }, { workers = 1 } })
    local inner = write("inner.lua", versioned "1.0.0")
    local outer = write("outer.lua", [[
local mpreg = require "mpreg"
local outer = { _VERSION = "1.0.0" }
local inner = require "inner"
--- The version that it sees in three ways: required, called here, called elsewhere.
function outer.look(nodes)
  local seen = { inner.version() }
  for i = 1, #nodes do seen[#seen + 1] = mpreg.with { on = nodes[i] }.call("inner.version") end
  return seen
end
return outer
]])
    deploy(inner)
    deploy(outer)
    local graph = { name = "look", steps = {
      { name = "a", call = "outer.look", args = { { "n1", "n2", "n3" } } },
      { name = "b", call = "outer.look", args = { { "n3", "n2" } }, after = { "a" }, on = "n2" },
      { name = "c", call = "inner.version", args = {}, after = { "b" }, on = "n3" },
    }, output = { a = { ["$ref"] = "a" }, b = { ["$ref"] = "b" }, c = { ["$ref"] = "c" } } }
    local deploys, runs = 20, 0
    for k = 1, deploys do
      local version = ("1.%d.0"):format(k)
      write("inner.lua", versioned(version))
      local process = c[k % 3 + 1]:spawn { "deploy", inner, "-o", "json" }
      while not (process.code and process.open == 0) do
        local requests = {}
        for i = 1, 3 do
          for n = 1, 4 do requests[#requests + 1] = { c:client(i), c:client(i):run(graph), n } end
        end
        for _, r in ipairs(requests) do
          local run = r[1]:result(r[2])
          assert.are.equal("succeeded", run.status)
          local first = run.output.c
          for _, list in ipairs { run.output.a, run.output.b } do
            for _, v in ipairs(list) do assert.are.equal(first, v) end
          end
          runs = runs + 1
        end
      end
      local r = process:wait()
      assert.are.equal(0, r.code, r.out .. r.err)
      on_all("inner.version", version)
    end
    assert.is_true(runs >= 12 * deploys)
  end)

  it("of one module at one moment all succeed, and all nodes end with the same", function()
    start(3)
    local processes = {}
    for i = 1, 3 do
      local path = write(("d%d/m.lua"):format(i), versioned(("1.%d.0"):format(i)))
      processes[i] = c[i]:spawn { "deploy", path, "--force", "-o", "json" }
    end
    for i = 1, 3 do assert.are.equal(0, processes[i]:wait().code) end
    local first
    node.eventually(function()
      local versions = {}
      for i = 1, 3 do versions[i] = c:result(i, "m.version") end
      first = versions[1]
      return versions[2] == first and versions[3] == first
    end, "one version everywhere", 10)
    local last
    for i = 1, 3 do
      local entries = history("m", i)
      assert.are.equal(3, #entries)
      assert.are.equal("live", entries[1].state)
      last = last or entries[1].hash
      assert.are.equal(last, entries[1].hash)
    end
  end)

  it("leave no old version in memory when the last call on it has ended", function()
    start(nil, { { workers = 1 } })
    local path = write("m.lua", "")
    local function memory()
      return c:client(1):query("status").workers[1].memory_bytes
    end
    local function many(from, to)
      for k = from, to do
        write("m.lua", versioned(("1.%d.0"):format(k), "m.big = ('x'):rep(100000) .. " .. k))
        deploy(path)
        assert.are.equal(("1.%d.0"):format(k), c:result(1, "m.version"))
      end
    end
    many(1, 20)
    local before = memory()
    many(21, 80)
    -- A sanitizer keeps what was freed for a while.
    local bound = 60 * 100000 / 2 + (cluster.SLOW > 1 and 2.5e8 or 4e6)
    assert.is_true(memory() < before + bound, ("%d bytes, then %d"):format(before, memory()))
  end)
end)

describe("mpreg deploy --watch", function()
  it("deploys what is saved, keeps what was live, undeploys what is gone, until Ctrl-C", function()
    start(2)
    write("w/a.lua", versioned "1.0.0")
    write("w/b.lua", versioned "1.0.0")
    local watch = node.spawn(node.bin(), { "deploy", folder .. "/w", "--watch", "-n", c[1].addr })
    watch:wait_for("out", "deployed a 1%.0%.0%+%x+, b 1%.0%.0%+%x+ · 2 nodes")
    write("w/a.lua", versioned "1.1.0")
    watch:wait_for("out", "deployed a 1%.1%.0%+%x+ · 2 nodes")
    on_all("a.version", "1.1.0")
    write("w/a.lua", "local a = {}\na.x ==\n")
    watch:wait_for("out", "SYNTAX_ERROR: a%.lua:2: .- · the old version stays")
    on_all("a.version", "1.1.0")
    write("w/a.lua", versioned "0.9.0") -- lower: a watch implies --force
    watch:wait_for("out", "deployed a 0%.9%.0%+%x+")
    on_all("a.version", "0.9.0")
    write("w/geo/c.lua", versioned "1.0.0")
    watch:wait_for("out", "deployed geo%.c 1%.0%.0%+%x+")
    assert(uv.fs_unlink(folder .. "/w/b.lua"))
    watch:wait_for("out", "undeployed b · 2 nodes")
    assert.are.equal("NOT_FOUND/UNKNOWN_FUNCTION", c:answer(2, "b.version").code)
    watch:kill "sigint"
    assert.are.equal(130, watch:wait().code)
    on_all("geo.c.version", "1.0.0")
    assert.are.equal(0, #watch:descendants())
  end)
end)
