-- Units beside each other, releases, and the instances that their modules have.

describe("runtime.module, with units and releases,", function()
  local FRESH = { "mpreg", "mpreg.worker", "mpreg.runtime.module", "mpreg.runtime.output",
    "mpreg.runtime.release", "mpreg.runtime.describe" }
  local module, saved
  local release -- of the call that "runs"
  local forgotten, is_all_forgotten

  before_each(function()
    saved, release, forgotten, is_all_forgotten = {}, 0, {}, false
    for _, name in ipairs(FRESH) do
      saved[name] = package.loaded[name]
      package.loaded[name] = nil
    end
    package.loaded["mpreg.worker"] = {
      mark = newproxy(),
      log = function() end,
      take_text = function() return 0 end,
      in_call = function() return false end,
      loading = function() end,
      release = function() return release end,
      forget = function(number, id)
        is_all_forgotten = is_all_forgotten or number == nil
        forgotten[id or 0] = number
      end,
    }
    module = require "mpreg.runtime.module"
  end)

  after_each(function()
    for _, name in ipairs(FRESH) do
      package.loaded[name] = saved[name]
    end
  end)

  local numbers = 0

  --- Loads a unit: name, source, … Gives the modules' numbers by name, and what load() said.
  local function load_unit(unit, ...)
    local by_name, results = {}, {}
    for i = 1, select("#", ...), 2 do
      local name, source = select(i, ...)
      numbers = numbers + 1
      by_name[name] = numbers
      module.add(numbers, unit, name, source)
    end
    for name, number in pairs(by_name) do
      results[name] = { module.load(number, false) }
    end
    return by_name, results
  end

  --- Opens a release: name, unit, number, …
  local function open(number, ...)
    local entries = {}
    for i = 1, select("#", ...), 3 do
      local name, unit, n = select(i, ...)
      entries[#entries + 1] = { name, unit, n }
    end
    module.open(number, entries)
  end

  --- Calls the first function of a module in a release.
  local function call(number, in_release, ...)
    local functions = module.find(number, in_release)
    release = in_release
    return functions[1](...)
  end

  local function id_of(number, in_release)
    return (select(3, module.find(number, in_release)))
  end

  describe("keeps", function()
    it("versions of a module beside each other", function()
      local one = load_unit(1, "m", "n = 0 return { f = function() n = n + 1 return n end }")
      local two = load_unit(2, "m", "return { f = function() return n end, version = 2 }")
      assert.are.equal(1, call(one.m, 0))
      assert.are.equal(2, call(one.m, 0))
      assert.is_nil(call(two.m, 0))
      assert.are.equal(3, call(one.m, 0))
    end)

    it("one instance of a module that sees nothing deployed, for all releases", function()
      local one, results = load_unit(1, "m", "local json = require 'json' "
        .. "return { f = function() return json.encode { 1 } end }")
      assert.is_true(results.m[6])
      open(1, "m", 1, one.m)
      open(2, "m", 1, one.m)
      assert.are.equal(id_of(one.m, 1), id_of(one.m, 2))
      assert.are.equal("[1]", call(one.m, 1))
    end)

    it("the documentation of versions apart", function()
      local function describe_unit(unit, source)
        numbers = numbers + 1
        module.add(numbers, unit, "m", source)
        return numbers
      end
      local one = describe_unit(1, "local M = {}\n--- Old.\nfunction M.f() end\nreturn M")
      local two = describe_unit(2, "local M = {}\n--- New.\nfunction M.f() end\nreturn M")
      module.load(one, false)
      module.load(two, false)
      assert.are.equal("New.", select(4, module.load(two, true)).functions[1].doc)
      assert.are.equal("Old.", select(4, module.load(one, true)).functions[1].doc)
    end)
  end)

  describe("finds", function()
    it("a unit's own modules before libraries, these before deployed ones", function()
      local other = load_unit(2, "cjson", "return { from = 'deployed' }",
        "lib", "return { from = 'deployed' }", "stats", "return { from = 'deployed' }")
      local one = load_unit(1, "lib", "return { from = 'own' }", "text", "return { from = 'own' }",
        "a", "return { f = function(name) return require(name) end }")
      open(1, "cjson", 2, other.cjson, "lib", 2, other.lib, "stats", 2, other.stats)
      assert.are.equal("own", call(one.a, 1, "lib").from)
      assert.are.equal("own", call(one.a, 1, "text").from)
      assert.are.equal(require "cjson", call(one.a, 1, "cjson"))
      assert.are.equal("function", type(call(one.a, 1, "stats").median))
      assert.are.equal("function", type(call(one.a, 1, "mpreg").call))
    end)

    it("deployed modules last in the node's own files, and never those from a unit", function()
      local node = load_unit(0, "tools", "return { from = 'node' }",
        "stats", "return { from = 'node' }",
        "a", "return { f = function(name) return require(name).from end }")
      local one = load_unit(1, "tools", "return { from = 'deployed' }",
        "extra", "return { from = 'deployed' }",
        "b", "return { f = function(name) return require(name).from end }")
      local two = load_unit(2, "c", "return { f = function(name) return require(name).from end }")
      open(1, "tools", 1, one.tools, "extra", 1, one.extra)
      open(2)
      assert.are.equal("node", call(node.a, 1, "tools"))
      assert.are.equal("node", call(node.a, 1, "stats"))
      assert.are.equal("deployed", call(node.a, 1, "extra"))
      assert.are.equal("deployed", call(two.c, 1, "tools"))
      assert.is_nil(call(two.c, 1, "stats"))
      local ok, message = pcall(call, two.c, 2, "tools")
      assert.is_false(ok)
      assert.is_truthy(message:find("module 'tools' is not there: it was not deployed", 1, true))
      ok, message = pcall(call, node.a, 2, "extra")
      assert.is_false(ok)
      assert.is_truthy(message:find("module 'extra' is not loaded on this node", 1, true))
    end)

    it("every module that all nodes have", function()
      local one = load_unit(1, "a", "return { f = function(name) return require(name) end }")
      for file in io.popen("ls modules"):lines() do
        local name = file:match("^(%w+)%.lua$")
        assert.are.equal("table", type(call(one.a, 0, name)), name)
      end
    end)
  end)

  describe("shows one version of each deployed module,", function()
    local b1, b2, a

    before_each(function()
      b1 = load_unit(2, "b", "return { _VERSION = '1.0.0', v = 1 }")
      b2 = load_unit(3, "b", "return { _VERSION = '2.0.0', v = 2 }")
      open(1, "b", 2, b1.b)
      open(2, "b", 3, b2.b)
    end)

    it("that of the call's release, when it is required while loading", function()
      a = load_unit(1, "a", "local b = require 'b' return { f = function() return b.v end }")
      assert.are.equal(1, call(a.a, 1))
      assert.are.equal(2, call(a.a, 2))
      assert.are.equal(1, call(a.a, 1))
      assert.is_false((select(4, module.find(a.a, 1))))
    end)

    it("also when it is required in a function", function()
      a = load_unit(1, "a", "return { f = function() return require('b').v end }")
      assert.are.equal(2, call(a.a, 2))
      assert.are.equal(1, call(a.a, 1))
      assert.are.equal(2, call(a.a, 2))
    end)

    it("under a name that does not stand in the source", function()
      a = load_unit(1, "a", "kept = 'none' return { f = function(name) "
        .. "kept = require(name).v return kept end, g = function() return kept end }")
      local first = id_of(a.a, 1)
      assert.is_true((select(4, module.find(a.a, 1))))
      assert.are.equal(first, id_of(a.a, 2))
      assert.are.equal(1, call(a.a, 1, "b"))
      assert.is_true(is_all_forgotten)
      assert.is_false((select(4, module.find(a.a, 1))))
      assert.are.equal(first, id_of(a.a, 1))
      assert.are_not.equal(first, id_of(a.a, 2))
      assert.are.equal("none", module.find(a.a, 2)[2]())
      assert.are.equal(1, module.find(a.a, 1)[2]())
    end)

    it("for a call that runs in an instance which another release made its own", function()
      a = load_unit(1, "a", "return { f = function(name) return require(name).v end }")
      local shared = module.find(a.a, 2)[1] -- a call of release 2 holds it
      assert.are.equal(1, call(a.a, 1, "b"))
      release = 2
      assert.are.equal(2, shared("b"))
      release = 1
      assert.are.equal(1, shared("b"))
    end)

    it("and sees that one came which was not there", function()
      open(3)
      a = load_unit(1, "a", "local ok, b = pcall(require, 'b') "
        .. "return { f = function() return ok and b.v end }")
      assert.is_false(call(a.a, 3))
      assert.are.equal(2, call(a.a, 2))
      assert.is_false(call(a.a, 3))
    end)

    it("through modules between", function()
      local mid = load_unit(4, "mid", "local b = require 'b' return { v = b.v }")
      a = load_unit(1, "a", "local own = require 'own' return { f = function() return own.v end }",
        "own", "return { v = require('mid').v * 10 }",
        "alone", "n = 0 return { f = function() n = n + 1 return n end }")
      open(1, "b", 2, b1.b, "mid", 4, mid.mid)
      open(2, "b", 3, b2.b, "mid", 4, mid.mid)
      assert.are.equal(10, call(a.a, 1))
      assert.are.equal(20, call(a.a, 2))
      assert.are.equal(1, call(a.alone, 1))
      assert.are.equal(2, call(a.alone, 2))
    end)

    it("in a diamond", function()
      local c = load_unit(4, "c", "return { d = require 'b' }")
      local d = load_unit(5, "d", "return { d = require 'b' }")
      a = load_unit(1, "a", "local c, d = require 'c', require 'd' "
        .. "return { f = function() return c.d == d.d, c.d.v end }")
      open(1, "b", 2, b1.b, "c", 4, c.c, "d", 5, d.d)
      open(2, "b", 3, b2.b, "c", 4, c.c, "d", 5, d.d)
      assert.are.same({ true, 1 }, { call(a.a, 1) })
      assert.are.same({ true, 2 }, { call(a.a, 2) })
    end)

    it("in the node's own files too", function()
      a = load_unit(0, "a", "return { f = function() return require('b').v end }")
      assert.are.equal(1, call(a.a, 1))
      assert.are.equal(2, call(a.a, 2))
    end)
  end)

  describe("fails", function()
    it("only the calls of the release in which a module cannot be loaded", function()
      local good = load_unit(2, "b", "return { _VERSION = '1.0.0', f = { g = 1 } }")
      local bad = load_unit(3, "b", "return { _VERSION = '2.0.0' }")
      local a = load_unit(1, "geo.a", "local b = require 'b'\n"
        .. "return { f = function() return b.f.g end, x = b.f.g }")
      open(1, "b", 2, good.b)
      open(2, "b", 3, bad.b)
      assert.are.equal(1, call(a["geo.a"], 1))
      for _ = 1, 2 do
        local ok, err = pcall(call, a["geo.a"], 2)
        assert.is_false(ok)
        assert.are.equal("INVALID_ARGUMENT", err.code)
        assert.are.equal("LOAD_ERROR", err.reason)
        assert.are.equal("module 'geo.a' cannot be loaded: geo/a.lua:2: attempt to index field 'f' "
          .. "(a nil value)", err.message)
        assert.are.equal("the module was loaded for this call, with b 2.0.0", err.hint)
      end
      assert.are.equal(1, call(a["geo.a"], 1))
    end)

    it("not yet when a unit comes before what it requires", function()
      local a, results = load_unit(1, "a", "local b = require 'b' "
        .. "return { f = function() return b.v end }")
      assert.are.same({ true }, results.a)
      local b = load_unit(2, "b", "return { v = 1 }")
      open(1, "b", 2, b.b)
      assert.are.equal(1, call(a.a, 1))
    end)

    it("at once when it would fail in any release", function()
      local _, results = load_unit(1, "a", "error 'no'", "b", "return 7")
      assert.is_false(results.a[1])
      assert.are.equal("LOAD_ERROR", results.a[2].reason)
      assert.is_false(results.b[1])
      assert.are.equal("BAD_MODULE", results.b[2].reason)
    end)

    it("naming the circle, across units", function()
      local a = load_unit(1, "a", "return { b = require 'b' }")
      local b = load_unit(2, "b", "return { c = require 'c' }")
      local c = load_unit(3, "c", "return { a = require 'a' }")
      open(1, "a", 1, a.a, "b", 2, b.b, "c", 3, c.c)
      local ok, err = pcall(call, a.a, 1)
      assert.is_false(ok)
      assert.is_truthy(err.message:find("in a circle: a -> b -> c -> a", 1, true))
    end)

    it("not for circles that close in functions", function()
      local a = load_unit(1, "a", "return { f = function() return require('b').g() end, v = 3 }")
      local b = load_unit(2, "b", "return { g = function() return require('a').v end }")
      open(1, "a", 1, a.a, "b", 2, b.b)
      open(2, "a", 1, a.a, "b", 2, b.b)
      assert.are.equal(3, call(a.a, 1))
      assert.are.equal(3, call(a.a, 2))
      assert.are.equal(id_of(a.a, 1), id_of(a.a, 2))
    end)

    it("calls of functions that a version lacks in its own way", function()
      numbers = numbers + 1
      module.add(numbers, 1, "a", "return { a = function() return 'a' end }", { "z", "a" })
      module.load(numbers, false)
      local functions = module.find(numbers, 0)
      assert.is_false(functions[1])
      assert.are.equal("a", functions[2]())
    end)
  end)

  it("numbers the functions of all instances alike", function()
    local b1 = load_unit(2, "b", "return { more = {} }")
    local b2 = load_unit(3, "b", "return { more = { 'a', 'z' } }")
    local a = load_unit(1, "a", [[
local M = { m = function() return "m" end }
for _, name in ipairs(require("b").more) do M[name] = function() return name end end
return M
]])
    open(1, "b", 2, b1.b)
    open(2, "b", 3, b2.b)
    assert.are.equal("m", call(a.a, 1))
    assert.are.equal("m", call(a.a, 2))
  end)

  describe("forgets", function()
    local alive

    --- An environment, as a weak value.
    local function watch(number, in_release)
      alive = alive or setmetatable({}, { __mode = "v" })
      alive[#alive + 1] = getfenv(module.find(number, in_release)[1])
    end

    local function count_alive()
      collectgarbage()
      collectgarbage()
      local count = 0
      for _ in pairs(alive) do
        count = count + 1
      end
      return count
    end

    before_each(function() alive = nil end)

    it("a unit that is unloaded, and gives its numbers to another", function()
      local a = load_unit(1, "a", "return { f = function() return 1 end }")
      watch(a.a, 0)
      assert.are.equal(1, count_alive())
      module.unload(1)
      assert.are.equal(0, count_alive())
      module.add(a.a, 1, "other", "return { f = function() return 2 end }")
      assert.is_true((module.load(a.a, false)))
      assert.are.equal(2, call(a.a, 0))
    end)

    it("instances that serve no open release, and keeps the others", function()
      local b1 = load_unit(2, "b", "return { v = 1, f = function() end }")
      local b2 = load_unit(3, "b", "return { v = 2, f = function() end }")
      local a = load_unit(1, "a", "local b = require 'b' return { f = function() return b.v end }")
      open(1, "b", 2, b1.b)
      open(2, "b", 3, b2.b)
      watch(a.a, 1)
      watch(a.a, 2)
      local old, kept = id_of(a.a, 1), id_of(a.a, 2)
      assert.are.equal(2, count_alive())
      module.close(1)
      assert.are.equal(1, count_alive())
      assert.are.equal(a.a, forgotten[old])
      assert.is_nil(forgotten[kept])
      module.unload(2)
      assert.are.equal(2, call(a.a, 2))
      assert.are.equal(kept, id_of(a.a, 2))
      open(1, "b", 3, b2.b)
      assert.are.equal(kept, id_of(a.a, 1))
    end)

    it("nothing that a coroutine still runs", function()
      local b = load_unit(2, "b", "return { v = 1 }")
      local a = load_unit(1, "a", "local b = require 'b' "
        .. "return { f = function() coroutine.yield() return b.v, require('own').v end }",
        "own", "return { v = 5 }")
      open(1, "b", 2, b.b)
      watch(a.a, 1)
      local f = module.find(a.a, 1)[1]
      local co = coroutine.create(setfenv(f, getfenv(f)))
      getfenv(f).coroutine.yield = coroutine.yield
      f = nil -- luacheck: ignore
      release = 1
      assert.is_true(coroutine.resume(co))
      module.close(1)
      module.unload(1)
      module.unload(2)
      assert.are.equal(1, count_alive())
      assert.are.same({ true, 1, 5 }, { coroutine.resume(co) })
      co = nil -- luacheck: ignore
      assert.are.equal(0, count_alive())
    end)

    it("all of a thousand units", function()
      local dep = load_unit(2, "b", "return { v = 1 }")
      local source = "local b = require 'b'\n--- Text.\nlocal t = {} "
        .. "for i = 1, 1000 do t[i] = i end return { f = function() return t[b.v] end }"
      local function turn(n)
        module.add(1e6, 7, "m", source .. " -- " .. n)
        module.load(1e6, false)
        open(3, "b", 2, dep.b, "m", 7, 1e6)
        assert.are.equal(1, call(1e6, 3))
        module.close(3)
        module.unload(7)
      end
      for n = 1, 50 do
        turn(n)
      end
      collectgarbage()
      collectgarbage()
      local before = collectgarbage("count")
      for n = 1, 1000 do
        turn(n)
      end
      collectgarbage()
      collectgarbage()
      local after = collectgarbage("count")
      assert.is_true(after < before * 1.1, ("%d KiB, then %d KiB"):format(before, after))
    end)
  end)
end)
