-- Modules that cannot be loaded: the log says which, where and why, and the node goes on without
-- them.

local client = require "spec.support.client"
local node = require "spec.support.node"
local scene = require "spec.support.scene"

describe("loading", function()
  local folder, n, c

  local function write(name, text)
    local file = assert(io.open(folder .. "/" .. name, "w"))
    file:write(text)
    file:close()
  end

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir -p " .. folder .. "/geo/spec") == 0)
    write("good.lua", "local M = {} function M.f() return 'good' end return M")
  end)

  after_each(function()
    if c then c:close() end
    local ok, err = true, nil
    if n and not n.code then ok, err = pcall(n.stop, n) end
    n, c = nil, nil
    node.stop_all()
    os.execute("rm -r " .. folder)
    assert(ok, err)
  end)

  local function start(...)
    n = node.start { "--workers", "2", "--load", folder, ... }
    c = client.connect(n)
  end

  --- The node serves, has the good module and not the bad one; gives the log's line about it.
  local function left_out(name)
    assert.are.equal("good", c:result(c:call("good.f")))
    local request = c:wait(c:call(name .. ".f"))
    assert.are.equal("NOT_FOUND/UNKNOWN_FUNCTION", request.code)
    for _, m in ipairs(c:query("modules").modules) do assert.are_not.equal(name, m.name) end
    assert.are.equal(2, #n:workers())
    for line in n:err():gmatch("[^\n]+") do
      if line:find("module " .. name .. " is left out", 1, true) then return line end
    end
    error("nothing in the log about " .. name .. ":\n" .. n:err())
  end

  it("names file and line of a syntax error", function()
    write("bad.lua", "local M = {}\n\nfunction M.f( return 1 end\nreturn M\n")
    start()
    local line = left_out "bad"
    assert.truthy(line:find("bad.lua:3:", 1, true), line)
    assert.falsy(line:find(folder, 1, true), line)
  end)

  it("names file and line of an error raised", function()
    write("geo/bad.lua", "local M = {}\nerror('no data')\nreturn M\n")
    start()
    local line = left_out "geo.bad"
    assert.truthy(line:find("geo/bad.lua:2:", 1, true), line)
    assert.truthy(line:find("no data", 1, true), line)
  end)

  it("says that a module returned nothing", function()
    write("bad.lua", "local M = {}\nfunction M.f() end\n")
    start()
    local line = left_out "bad"
    assert.truthy(line:find("return", 1, true), line)
  end)

  it("ends a module that loops", function()
    write("bad.lua", "while true do end\n")
    start()
    local line = left_out "bad"
    assert.truthy(line:find("2 s", 1, true), line)
  end)

  it("survives a module that crashes, or ends the process", function()
    write("bad.lua", "require('ffi').cast('int *', 0)[0] = 1\n")
    write("worse.lua", "local ffi = require 'ffi' ffi.cdef 'void exit(int);' ffi.C.exit(0)\n")
    start()
    assert.is_true(scene.tells_crash(left_out("bad")))
    assert.truthy(left_out("worse"):find("exit status 0", 1, true))
  end)

  it("survives a module that takes all memory", function()
    write("bad.lua", "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1e6) .. i end return t\n")
    start("--worker-memory", "16M")
    assert.truthy(left_out("bad"):find("WORKER_MEMORY", 1, true))
  end)

  it("says what a module requires in vain", function()
    write("bad.lua", "local x = require 'nowhere'\nreturn x\n")
    start()
    local line = left_out "bad"
    assert.truthy(line:find("nowhere", 1, true), line)
    assert.truthy(line:find("bad.lua:1:", 1, true), line)
  end)

  it("passes over specs and what has no module's name, and takes folders", function()
    write("geo/init.lua", "return { f = function() return 'geo' end }")
    write("geo/grid.lua", "local geo = require 'geo' return { f = function() return geo.f() end }")
    write("geo/grid_spec.lua", "error 'a spec'")
    write("geo/spec/x.lua", "error 'a spec'")
    write("not a name.lua", "return {}")
    start()
    assert.are.equal("geo", c:result(c:call("geo.grid.f")))
    assert.are.equal("geo", c:result(c:call("geo.f")))
    assert.falsy(n:err():find("a spec", 1, true))
    assert.truthy(n:err():find("is no module name", 1, true))
  end)

  it("serves only when all workers have all modules", function()
    -- Each worker takes a moment to load this one: the first call must not come too early.
    write("slow.lua", [[
      local t = os.clock()
      while os.clock() - t < 0.2 do end
      return { f = function() return "slow" end }]])
    start()
    local list = {}
    for i = 1, 20 do list[i] = c:call("slow.f") end
    c:wait(list)
    for _, r in ipairs(list) do assert.are.equal("slow", r.result) end
  end)

  it("of a replaced worker leaves out what was left out before", function()
    write("bad.lua", "error 'no data'\n")
    write("kill.lua", "local ffi = require 'ffi'\n"
      .. "return { f = function() ffi.cast('int *', 0)[0] = 1 end }")
    start()
    for _ = 1, 3 do
      assert.are.equal("UNAVAILABLE/WORKER_LOST", c:wait(c:call("kill.f")).code)
      assert.are.equal("good", c:result(c:call("good.f")))
    end
    local _, count = n:err():gsub("module bad is left out", "")
    assert.are.equal(1, count)
  end)

  it("keeps a worker's place when a module fails in it alone", function()
    -- It works in the first worker that loads it, and crashes every other one after that.
    write("moody.lua", ([[
      local path = %q
      local file = io.open(path)
      if file then
        require("ffi").cast("int *", 0)[0] = 1
      end
      assert(io.open(path, "w")):close()
      return { f = function() return 1 end }]]):format(folder .. "/mark"))
    start()
    assert.are.equal("good", c:result(c:call("good.f")))
    node.eventually(function() return #n:workers() == 2 end, "two workers", 5 * scene.SLOW)
  end)

  -- What LuaJIT does to such a loop: src/binding/chunk.h.
  it("gives modules loops that are right also when the compiler gives them up", function()
    write("loops.lua", [[
      local M = {}
      local t = { 1, 2, 3, 4, 5 }
      local all = { a = t, b = t, c = t, d = t, e = t }
      local function f(...) for _ = 1, 100 do end end
      local loaded = loadstring "local n = 0 for _ in pairs(...) do n = n + 1 end return n"
      function M.wrong()
        local wrong = 0
        for _ = 1, 100000 do
          f()
          local count = 0
          for _, v in pairs(all) do
            loaded(v)
            for _ in pairs(v) do end
            count = count + 1
          end
          if count ~= 5 then wrong = wrong + 1 end
        end
        return wrong
      end
      return M]])
    start()
    assert.are.equal(0, c:result(c:call("loops.wrong")))
  end)
end)
