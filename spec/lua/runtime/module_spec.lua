-- Loading, in a process that stands in for a worker: the C functions are replaced by a few of Lua.

describe("runtime.module", function()
  local module, failure
  local logged

  setup(function()
    package.loaded["mpreg.worker"] = {
      mark = newproxy(),
      log = function(level, message) logged[#logged + 1] = { level, message } end,
      take_text = function() return 1 end,
      in_call = function() return false end,
      node = function() return "n1", "default", "127.0.0.1:7400" end,
      loading = function() end,
      release = function() return 0 end,
      forget = function() end,
    }
    for _, name in ipairs { "mpreg", "mpreg.runtime.module", "mpreg.runtime.output",
      "mpreg.runtime.release", "mpreg.runtime.describe" } do
      package.loaded[name] = nil
    end
    failure = require "mpreg.runtime.failure"
    module = require "mpreg.runtime.module"
  end)

  before_each(function() logged = {} end)

  local number = 0

  --- Loads modules that belong together; gives what load() gives for each, in order.
  local function load_all(sources)
    local numbers, results = {}, {}
    for i, pair in ipairs(sources) do
      number = number + 1
      numbers[i] = number
      module.add(number, 0, pair[1], pair[2], pair[3])
    end
    for i, n in ipairs(numbers) do
      results[i] = { module.load(n, true) }
    end
    return results
  end

  local function load_one(source, name, expected)
    return unpack(load_all { { name or "m", source, expected } }[1], 1, 4)
  end

  local function functions_of(source)
    local ok, functions, _, metadata = load_one(source)
    assert.is_true(ok, not ok and tostring(functions))
    local by_name = {}
    for i, about in ipairs(metadata.functions) do
      by_name[about.name] = functions[i]
    end
    return by_name
  end

  local function refusal(source, name)
    local ok, err = load_one(source, name)
    assert.is_false(ok)
    assert.is_true(failure.is_error(err))
    assert.are.equal("INVALID_ARGUMENT", err.code)
    return err
  end

  describe("tells", function()
    it("what a module has", function()
      local ok, functions, marks, metadata = load_one([[
--- Weather of towns.
local M = { _VERSION = "1.2.3-rc.1", limit = 7 }

--- The mean.
---@param values number[]  of anything
---@param weight? number
---@return number
function M.mean(values, weight) return values, weight end

--- Names of towns.
---@return string[]
M.towns = function(...) return ... end

function M.bare(a, b) return a, b end
function M._private() end
M["not a name"] = print

M._mpreg = { mean = { needs = { "gpu" }, concurrency = 2, timeout = "1.5s", idempotent = true } }
return M
]])
      assert.is_true(ok)
      assert.are.equal(3, #functions)
      assert.are.same({ false, false, true }, marks)
      assert.are.same({ kind = "module", version = "1.2.3-rc.1", doc = "Weather of towns.",
        functions = {
          { name = "bare", params = { { name = "a" }, { name = "b" } } },
          { name = "mean", doc = "The mean.", returns = "number", needs = { "gpu" },
            concurrency = 2, timeout_ms = 1500, idempotent = true,
            params = { { name = "values", type = "number[]", doc = "of anything" },
              { name = "weight", type = "number?" } } },
          { name = "towns", doc = "Names of towns.", returns = "string[]",
            params = { { name = "..." } } },
        } }, metadata)
    end)

    it("0.0.0 as the version that is missing, and no functions as an empty list", function()
      local _, _, _, metadata = load_one("return {}")
      assert.are.equal("0.0.0", metadata.version)
      assert.are.equal("\144", (require("mpreg.codec").encode(metadata.functions)))
    end)

    it("the documentation of functions that are wrapped or exported later", function()
      local ok, _, _, metadata = load_one([[
local M = {}
local function memoize(f) return function(...) return f(...) end end
--- Wrapped.
M.wrapped = memoize(function(x) return x end)
--- Later.
---@param x number
local function later(x) return x end
M.later = later
return M
]])
      assert.is_true(ok)
      assert.are.equal("Later.", metadata.functions[1].doc)
      assert.are.equal("number", metadata.functions[1].params[1].type)
      assert.are.equal("Wrapped.", metadata.functions[2].doc)
    end)

    it("functions in the order that was asked for, with gaps", function()
      local ok, functions = load_one(
        "return { a = function() end, b = function() end }", "m", { "b", "gone", "a" })
      assert.is_true(ok)
      assert.are.equal(3, #functions)
      assert.is_false(functions[2])
      assert.are.equal("function", type(functions[1]))
    end)

    it("a pipeline from a module", function()
      local ok, functions, _, metadata = load_one([[
local mpreg = require "mpreg"
return mpreg.pipeline("quakes", function(p, input)
  return p "load" { "quakes.load", input.file }
end)
]], "pipeline")
      assert.is_true(ok, tostring(functions))
      assert.are.same({}, functions)
      assert.are.equal("pipeline", metadata.kind)
      assert.are.equal("quakes", metadata.name)
      assert.are.equal("quakes.load", metadata.graph.steps[1].call)
    end)
  end)

  describe("refuses", function()
    it("what does not compile, with file and line", function()
      local err = refusal("local x = 1\nlocal = 2\n", "geo.grid")
      assert.are.equal("SYNTAX_ERROR", err.reason)
      assert.are.equal("geo/grid.lua:2: '<name>' expected near '='", err.message)
    end)

    it("bytecode", function()
      local err = refusal(string.dump(function() return {} end))
      assert.are.equal("SYNTAX_ERROR", err.reason)
      assert.are.equal("m.lua: this is bytecode; a module is Lua source", err.message)
    end)

    it("what fails while it loads", function()
      local err = refusal("local M = {}\nerror('no data')\n")
      assert.are.equal("LOAD_ERROR", err.reason)
      assert.are.equal("m.lua:2: no data", err.message)
      err = refusal("return ('x').y.z")
      assert.are.equal("m.lua:1: attempt to index field 'y' (a nil value)", err.message)
      err = refusal("error { code = 'NOT_FOUND', message = 'no file' }")
      assert.are.equal("LOAD_ERROR", err.reason)
      assert.are.equal("m.lua: no file", err.message)
      err = refusal("error('bare', 0)")
      assert.are.equal("m.lua: bare", err.message)
    end)

    it("what returns no table", function()
      assert.are.equal("m.lua: it returned nothing; a module returns a table of functions",
        refusal("local M = {}").message)
      assert.are.equal("m.lua: it returned a function; a module returns a table of functions",
        refusal("return print").message)
      assert.are.equal("BAD_MODULE", refusal("return 7").reason)
    end)

    it("versions that are none", function()
      for _, version in ipairs { "'1.2'", "'1.2.3.4'", "'v1.2.3'", "'01.2.3'", "''", "1.2", "{}",
        "'1.2.3-'", "'1.2.3-a..b'", "'1.2.3 '" } do
        local err = refusal("return { _VERSION = " .. version .. " }")
        assert.are.equal("BAD_VERSION", err.reason)
      end
      for _, version in ipairs { "0.0.0", "1.2.3", "10.20.30-rc.1", "1.2.3+build.7" } do
        assert.is_true((load_one(("return { _VERSION = %q }"):format(version))))
      end
    end)

    it("options that it does not know or that are of the wrong type", function()
      local function with(options)
        return "local M = {} function M.f() end M._mpreg = " .. options .. " return M"
      end
      for options, message in pairs {
        ["7"] = "_mpreg must be a table",
        ["{ g = {} }"] = "_mpreg.g: the module has no function of that name",
        ["{ f = 1 }"] = "_mpreg.f must be a table of options",
        ["{ f = { neds = {} } }"] = "_mpreg.f.neds: there is no such option",
        ["{ f = { needs = 'gpu' } }"] = "_mpreg.f.needs: must be a list of resource names",
        ["{ f = { needs = { 'a b' } } }"] = "_mpreg.f.needs: must be a list",
        ["{ f = { concurrency = 0 } }"] = "_mpreg.f.concurrency: must be a whole number",
        ["{ f = { timeout = 'soon' } }"] = "_mpreg.f.timeout: 'soon' is no duration",
        ["{ f = { timeout = -1 } }"] = "_mpreg.f.timeout: a time must be",
        ["{ f = { idempotent = 1 } }"] = "_mpreg.f.idempotent: must be true or false",
        ["{ f = { subscribe = 1 } }"] = "_mpreg.f.subscribe: must be a pattern of topics",
        ["{ f = { subscribe = {} } }"] = "_mpreg.f.subscribe: must be a pattern of topics",
        ["{ f = { subscribe = { 'a', x = 'b' } } }"] = "_mpreg.f.subscribe: must be a pattern",
        ["{ f = { subscribe = { 7 } } }"] = "_mpreg.f.subscribe: a pattern of topics is a text",
        ["{ f = { subscribe = 'a..b' } }"] = "_mpreg.f.subscribe: \"a..b\": word 2 is empty",
        ["{ f = { subscribe = '' } }"] = "_mpreg.f.subscribe: \"\": word 1 is empty",
        ["{ f = { subscribe = 'a.b*' } }"] = "word 2 is \"b*\"; a word is *, #, or of letters",
        ["{ f = { subscribe = ('a.'):rep(32) .. 'a' } }"] = "33 words; at most 32 are allowed",
        ["{ f = { subscribe = ('a'):rep(65) } }"] = "word 1 has more than 64 bytes",
        ["{ f = { subscribe = ('a.'):rep(300) } }"] = "at most 512 bytes, this one has 600",
      } do
        local err = refusal(with(options))
        assert.are.equal("BAD_OPTIONS", err.reason)
        assert.is_truthy(err.message:find(message, 1, true), err.message)
      end
      assert.is_true((load_one(with("{ f = { needs = {}, timeout = 2 } }"))))
    end)

    it("no option that it knows", function()
      local function described(options)
        local ok, _, _, metadata =
          load_one("local M = {} function M.f() end M._mpreg = { f = " .. options .. " } return M")
        assert.is_true(ok)
        return metadata.functions[1]
      end
      assert.are.same({ "a.*.#" }, described("{ subscribe = 'a.*.#' }").subscribe)
      assert.are.same({ "#", "b.c-d" }, described("{ subscribe = { '#', 'b.c-d' } }").subscribe)
    end)
  end)

  describe("requires", function()
    it("other modules of the set, in any order, each loaded once", function()
      local results = load_all {
        { "a", "loads = (loads or 0) + 1; local b = require 'geo.b' "
          .. "return { f = function() return b.name() end, n = function() return loads end }" },
        { "geo.b", "return { name = function() return 'b' end, c = require 'c' }" },
        { "c", "local a = 0 return { count = function() a = a + 1 return a end }" },
      }
      for _, result in ipairs(results) do
        assert.is_true(result[1], tostring(result[2]))
      end
      assert.are.equal("b", results[1][2][1]())
      assert.are.equal(1, results[1][2][2]())
    end)

    it("libraries that come with mpreg, and nothing of the node", function()
      local functions = functions_of([[
local M = {}
function M.try(name) return pcall(require, name) end
return M
]])
      for _, name in ipairs { "mpreg", "cjson", "ffi", "bit", "string", "table", "math" } do
        local ok, library = functions.try(name)
        assert.is_true(ok, name)
        assert.are.equal("table", type(library))
      end
      for _, name in ipairs { "mpreg.runtime.module", "mpreg.worker", "luv", "busted", "nothing",
        "lfs", "os.exit" } do
        local ok, message = functions.try(name)
        assert.is_false(ok, name)
        assert.is_truthy(message:find(
          "module '" .. name .. "' is not loaded on this node", 1, true))
      end
      assert.is_false((functions.try(nil)))
    end)

    it("never itself instead of the library", function()
      local ok, functions = load_one("local l = require 'mpreg' return { f = function() "
        .. "return type(l.array) end }", "mpreg")
      assert.is_true(ok)
      assert.are.equal("function", functions[1]())
    end)

    it("naming the module that is broken, and circles", function()
      local results = load_all {
        { "a", "return require 'b'" },
        { "b", "syntax error" },
        { "x", "return { y = require 'y' }" },
        { "y", "return { z = require 'z' }" },
        { "z", "return { x = require 'x' }" },
      }
      assert.is_truthy(results[1][2].message:find(
        "module 'b' cannot be loaded: b.lua:1: '=' expected near 'error'", 1, true))
      assert.is_truthy(results[3][2].message:find(
        "modules require one another in a circle: x -> y -> z -> x", 1, true))
    end)
  end)

  describe("keeps modules apart", function()
    it("in their globals and their copies of the libraries", function()
      local results = load_all {
        { "a", "count = 1; string.trim = function() return 'patched' end; table.insert = nil; "
          .. "_G.math = nil; return { f = function() return count end }" },
        { "b", "return { f = function() return count, string.trim, table.insert, math end }" },
      }
      assert.are.equal(1, results[1][2][1]())
      local count, trim, insert, math_library = results[2][2][1]()
      assert.is_nil(count)
      assert.is_nil(trim)
      assert.is_not_nil(insert)
      assert.is_not_nil(math_library)
      assert.is_not_nil(table.insert)
      assert.is_nil(rawget(_G, "count"))
    end)

    it("in the runtime library", function()
      load_all { { "a", "local m = require 'mpreg' m.call = nil m.log.info = nil return {}" } }
      assert.are.equal("function", functions_of([[
local m = require "mpreg"
return { f = function() return type(m.call) .. type(m.log.info) end }
]]).f():sub(1, 8))
    end)

    it("in code that they compile", function()
      local functions = functions_of([[
here = "mine"
local M = {}
function M.f() return loadstring("return here")() end
function M.g() return load(function() end) ~= nil end
function M.h() return load("return here")() end
function M.i() return load("return x", "chunk", "bt", { x = 5 })() end
function M.j(code) return load(code, "c", "b") end
function M.k(code) return load(code) end
function M.l() return getfenv(0) == _G and getfenv() == _G and getfenv(1) == _G end
return M
]])
      assert.are.equal("mine", functions.f())
      assert.is_true(functions.g())
      assert.are.equal("mine", functions.h())
      assert.are.equal(5, functions.i())
      assert.is_nil((functions.j("return 1")))
      assert.is_nil((functions.k(string.dump(function() end))))
      assert.is_true(functions.l())
    end)
  end)

  it("refuses to end the process, and what reaches past the module", function()
    local functions = functions_of([[
local M = {}
function M.exit() os.exit(3) end
function M.locale() os.setlocale("C") end
function M.dofile() dofile("x.lua") end
function M.loadfile() loadfile("x.lua") end
return M
]])
    for name, reason in pairs { exit = "EXIT_REFUSED", locale = "REFUSED", dofile = "REFUSED",
      loadfile = "REFUSED" } do
      local ok, err = pcall(functions[name])
      assert.is_false(ok)
      assert.are.equal("FAILED_PRECONDITION", err.code)
      assert.are.equal(reason, err.reason)
    end
  end)

  it("refuses to change the compiler and the collector for all", function()
    local functions = functions_of([[
local M = {}
function M.f() jit.off() end
function M.g() collectgarbage("stop") end
function M.h() jit.off(M.f) jit.off(true) jit.on(M.f, true) return collectgarbage("count") end
return M
]])
    assert.is_false((pcall(functions.f)))
    assert.is_false((pcall(functions.g)))
    assert.are.equal("number", type(functions.h()))
  end)

  it("lets modules declare the same C type", function()
    for i = 1, 2 do
      local ok, err = load_one("require('ffi').cdef 'struct spec_point { int x; };' return {}",
        "point" .. i)
      assert.is_true(ok, not ok and err.message)
    end
    assert.is_false((load_one("require('ffi').cdef 'struct spec_point { int y; };' return {}")))
  end)

  it("logs what is printed, in lines", function()
    local functions = functions_of([[
local M = {}
function M.f()
  print("a", 1, nil, true)
  io.write("b", 2, "\n", "c\nd")
  io.stdout:write("e"):write("\n")
  io.stderr:write("f\n")
end
function M.g() return pcall(io.write, {}) end
return M
]])
    functions.f()
    assert.are.same({ { 1, "a\t1\tnil\ttrue" }, { 1, "b2" }, { 1, "c" }, { 1, "de" }, { 1, "f" } },
      logged)
    assert.is_false((functions.g()))
  end)

  it("cannot call others while a module loads", function()
    local err = refusal("require('mpreg').call('x.y')")
    assert.is_truthy(err.message:find("mpreg.call cannot be used while a module loads", 1, true))
  end)

  it("has coroutines of its own, and no yield outside them", function()
    local functions = functions_of([[
local M = {}
function M.f()
  local co = coroutine.create(function(a) local b = coroutine.yield(a + 1) return b * 2 end)
  local _, first = coroutine.resume(co, 1)
  local _, second = coroutine.resume(co, 10)
  return first, second, coroutine.status(co), (coroutine.resume(co))
end
function M.g()
  local next_one = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
  return next_one(), next_one(), next_one()
end
function M.h() return pcall(coroutine.wrap(function() error("inside", 0) end)) end
function M.i() return pcall(coroutine.yield, 1) end
return M
]])
    assert.are.same({ 2, 20, "dead", false }, { functions.f() })
    assert.are.same({ 1, 2, 3 }, { functions.g() })
    assert.are.same({ false, "inside" }, { functions.h() })
    local ok, message = functions.i()
    assert.is_false(ok)
    assert.is_truthy(message:find("attempt to yield from outside a coroutine", 1, true))
  end)
end)
