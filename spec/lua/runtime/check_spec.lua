-- What a deploy's scratch process says of units.

describe("runtime.check", function()
  local FRESH = { "mpreg", "mpreg.worker", "mpreg.runtime.module", "mpreg.runtime.output",
    "mpreg.runtime.release", "mpreg.runtime.describe", "mpreg.runtime.check" }
  local saved, strings

  before_each(function()
    saved = {}
    strings = getmetatable("").__metatable
    for _, name in ipairs(FRESH) do
      saved[name] = package.loaded[name]
      package.loaded[name] = nil
    end
  end)

  after_each(function()
    jit.on()
    getmetatable("").__metatable = strings
    for _, name in ipairs(FRESH) do
      package.loaded[name] = saved[name]
    end
  end)

  --- What the process has in C (src/check/check.c), by a hook: it interrupts modules' code.
  local function deadline()
    local till, message
    local function interrupt()
      if os.clock() < till then
        return
      end
      debug.sethook(interrupt, "", 1)
      local info = debug.getinfo(2, "Slf")
      local env = info and getfenv(info.func)
      if env and env ~= _G and rawget(env, "_G") == env then
        message = message or ("%s:%d: too long"):format(info.short_src, info.currentline)
        error(message, 0)
      end
    end
    return function(seconds)
      if seconds then
        till, message = os.clock() + 0.1, nil
        debug.sethook(interrupt, "", 1000)
        return nil
      end
      debug.sethook()
      return message
    end
  end

  local function check(unit, others)
    local is_ok, value
    require "mpreg.runtime.check" {
      read = function() return unit, others or {} end,
      send = function(ok, what) is_ok, value = ok, what end,
      deadline = deadline(),
      resource = function(name) return name == "gpu" and { cores = 8 } or nil end,
      node = function() return "n1", "default", "127.0.0.1:7400" end,
    }
    return is_ok, value
  end

  local function refusal(unit, others)
    local ok, err = check(unit, others)
    assert.is_false(ok)
    return err
  end

  it("tells what is in a unit, in its order", function()
    local ok, all = check({
      { "geo", "local grid = require 'geo.grid' print(require 'mpreg'.node()) "
        .. "return { _VERSION = '1.2.0', cell = grid.cell }" },
      { "geo.grid", "return { cell = function(x) return x end }" },
      { "pipeline", "return require 'mpreg'.pipeline('p', function(p, input) "
        .. "return p 's' { 'geo.cell', input.x } end)" },
    })
    assert.is_true(ok, tostring(all))
    assert.are.equal("1.2.0", all[1].version)
    assert.are.equal("0.0.0", all[2].version)
    assert.are.same({ { name = "cell", params = { { name = "x" } } } }, all[2].functions)
    assert.are.equal("pipeline", all[3].kind)
  end)

  it("says what is wrong, as a worker does", function()
    local err = refusal({ { "geo.grid", "local x = 1\nlocal = 2\n" } })
    assert.are.equal("INVALID_ARGUMENT", err.code)
    assert.are.equal("SYNTAX_ERROR", err.reason)
    assert.are.equal("geo/grid.lua:2: '<name>' expected near '='", err.message)
  end)

  it("names file and line of what fails, and the module that is nowhere", function()
    local err = refusal({ { "m", "return {}" }, { "n", "\n\nerror 'no data'" } })
    assert.are.equal("LOAD_ERROR", err.reason)
    assert.are.equal("n.lua:3: no data", err.message)
  end)

  it("names the module that is nowhere", function()
    local err = refusal({ { "m", "\nlocal n = require 'nowhere' return {}" } })
    assert.are.equal("LOAD_ERROR", err.reason)
    assert.is_truthy(err.message:find("m.lua:2: module 'nowhere' is not there", 1, true))
  end)

  it("refuses calls while a module loads", function()
    local err = refusal({ { "m", "require('mpreg').call('x.y') return {}" } })
    assert.is_truthy(err.message:find("mpreg.call cannot be used while a module loads", 1, true))
  end)

  for what, source in pairs {
    ["a loop"] = "local n = 0\nwhile true do\n  n = n + 1\nend",
    ["a loop that catches errors"] = "local n = 0\n"
      .. "while true do pcall(function() while true do n = n + 1 end end) end",
    ["a loop in a coroutine"] = "local n = 0\n"
      .. "coroutine.wrap(function() while true do n = n + 1 end end)()",
  } do
    it("interrupts " .. what, function()
      local err = refusal({ { "geo.grid", source } })
      assert.are.equal("INVALID_ARGUMENT", err.code)
      assert.are.equal("LOAD_TIMEOUT", err.reason)
      assert.is_truthy(err.message:find("^geo/grid.lua:[23]: too long$"),
        err.message)
    end)
  end

  it("has the node's resources", function()
    local ok, all = check({ { "m", "local cores = require 'mpreg'.resource('gpu').cores "
      .. "return { _VERSION = cores .. '.0.0' }" } })
    assert.is_true(ok, tostring(all))
    assert.are.equal("8.0.0", all[1].version)
  end)

  it("lets a unit require what is deployed, its own modules first", function()
    local ok, all = check({
      { "a", "local b, c = require 'b', require 'c' "
        .. "return { _VERSION = b.version, [c.name] = function() end }" },
      { "b", "return { version = '2.0.0' }" },
    }, { { { "b", "return { version = '1.0.0' }" }, { "c", "return { name = 'from_c' }" } } })
    assert.is_true(ok, tostring(all))
    assert.are.equal("2.0.0", all[1].version)
    assert.are.equal("from_c", all[1].functions[1].name)
  end)

  it("refuses what breaks a module that is deployed", function()
    local others = {
      { { "a", "local b = require 'b'\nreturn { f = b.f.g }" } },
      { { "c", "local a = require 'a' return { h = a.h }" } },
      { { "x", "error 'broken before'" } },
      { { "b", "return { f = { g = function() end } }" } },
    }
    local err = refusal({ { "b", "return {}" } }, others)
    assert.are.equal("FAILED_PRECONDITION", err.code)
    assert.are.equal("BREAKS_MODULE", err.reason)
    assert.are.equal("module 'a', which is deployed, can no longer be loaded: a.lua:2: attempt to "
      .. "index field 'f' (a nil value)", err.message)
  end)

  it("refuses what makes a deployed module loop", function()
    local err = refusal({ { "b", "return {}" } }, {
      { { "a", "local b = require 'b'\nwhile not b.f do end return {}" } },
      { { "b", "return { f = true }" } } })
    assert.are.equal("BREAKS_MODULE", err.reason)
    assert.are.equal("module 'a', which is deployed, can no longer be loaded: a.lua:2: too long",
      err.message)
  end)

  it("does not mind what is broken for other reasons", function()
    local ok = check({ { "b", "return {}" } }, {
      { { "a", "error 'broken before' require 'b'" } },
      { { "b", "return { old = function() end }" }, { "d", "return { f = require('b').old.x }" } },
    })
    -- 'a' fails with either b; 'd' has a b of its own unit.
    assert.is_true(ok)
  end)
end)
