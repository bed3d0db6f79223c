-- The module is called like the runtime library that it requires: it is loaded by its path, with a
-- small stand-in for the library.

describe("modules/mpreg", function()
  local real, module, slept

  setup(function()
    real = package.loaded["mpreg"]
    package.loaded["mpreg"] = {
      sleep = function(seconds) slept[#slept + 1] = seconds end,
      node = function() return { name = "n1", cluster = "default", addr = "127.0.0.1:7400" } end,
    }
    module = dofile("modules/mpreg.lua")
  end)

  teardown(function() package.loaded["mpreg"] = real end)

  before_each(function() slept = {} end)

  local function failure(...)
    local ok, err = pcall(...)
    assert.is_false(ok)
    return err
  end

  it("echoes the very value, whatever it is", function()
    local t = { 1, { a = true } }
    assert.are.equal(t, module.echo(t))
    for _, value in ipairs { "", "echo", 0, -1.5, false, true } do
      assert.are.equal(value, module.echo(value))
    end
    assert.is_nil(module.echo(nil))
    assert.are.equal(1, select("#", module.echo(1, 2, 3)))
  end)

  it("sleeps for as long as it is told and returns nothing", function()
    assert.are.equal(0, select("#", module.sleep(0.25)))
    module.sleep(0)
    assert.are.same({ 0.25, 0 }, slept)
  end)

  it("refuses to sleep for what is no span of time", function()
    for _, seconds in ipairs { "1", {}, true, -1, -1e-9, math.huge, 0 / 0 } do
      local err = failure(module.sleep, seconds)
      assert.are.equal("INVALID_ARGUMENT", err.code)
      assert.is_truthy(err.message:find("mpreg.sleep: seconds must be", 1, true))
    end
    assert.are.equal("INVALID_ARGUMENT", failure(module.sleep).code)
    assert.are.same({}, slept)
  end)

  it("tells where it ran", function()
    assert.are.same({ name = "n1", cluster = "default", addr = "127.0.0.1:7400" }, module.node())
  end)

  it("fails with the bare message, without a place in front", function()
    assert.are.equal("no such star", failure(module.fail, "no such star"))
    assert.are.equal("", failure(module.fail, ""))
    assert.are.equal("42", failure(module.fail, 42))
    assert.are.equal("false", failure(module.fail, false))
  end)

  it("refuses a message that is no text", function()
    assert.are.same({ code = "INVALID_ARGUMENT",
      message = "mpreg.fail: the message must be a string, not table" }, failure(module.fail, {}))
    assert.are.equal("INVALID_ARGUMENT", failure(module.fail).code)
  end)

  it("has a version, and marks as idempotent only what may run twice", function()
    assert.are.equal("1.0.0", module._VERSION)
    assert.are.same({ echo = { idempotent = true }, node = { idempotent = true } }, module._mpreg)
  end)
end)
