-- The library outside a node, as unit tests of functions see it.

describe("mpreg", function()
  local mpreg

  setup(function()
    package.loaded["mpreg"], package.loaded["mpreg.worker"] = nil, nil
    mpreg = require "mpreg"
  end)

  it("marks lists and bytes, and has null", function()
    local list = { 1 }
    assert.are.equal(list, mpreg.array(list))
    assert.are.same({}, setmetatable(mpreg.array {}, nil))
    assert.are.equal("abc", tostring(mpreg.bytes "abc"))
    assert.are.equal(require("cjson").null, mpreg.null)
    assert.is_false((pcall(mpreg.array, 1)))
    assert.is_false((pcall(mpreg.bytes, {})))
  end)

  it("makes errors", function()
    local err = mpreg.error("NOT_FOUND", "gone", { reason = "NO_ROW", retry = false })
    assert.are.equal("NOT_FOUND/NO_ROW: gone", tostring(err))
    assert.is_false(err.retry)
    assert.is_false((pcall(mpreg.error, nil, "x")))
    assert.is_false((pcall(mpreg.error, "NOT_FOUND", "x", 1)))
  end)

  it("builds pipelines", function()
    local pipeline = mpreg.pipeline("p", function(p) return p "a" { "m.f" } end)
    assert.is_true(require("mpreg.pipeline").is_pipeline(pipeline))
  end)

  it("says that a node is needed", function()
    for name, args in pairs { call = { "m.f" }, try = { "m.f" }, all = { {} }, sleep = { 1 },
      resource = { "r" }, node = {}, context = {}, publish = { "a.b", 1 } } do
      local ok, err = pcall(mpreg[name], unpack(args))
      assert.is_false(ok)
      assert.are.equal("NOT_ON_A_NODE", err.reason)
      assert.are.equal("mpreg." .. name .. " works only in a function that runs on a node",
        err.message)
    end
    local ok, err = pcall(mpreg.with({ timeout = "1s" }).call, "m.f")
    assert.is_false(ok)
    assert.are.equal("NOT_ON_A_NODE", err.reason)
  end)

  it("checks options where they are written", function()
    for key, value in pairs { needs = 7, version = {}, on = "", timeout = "soon", retries = -1,
      retry = 1 } do
      local ok, err = pcall(mpreg.with, { [key] = value })
      assert.is_false(ok)
      assert.are.equal("INVALID_ARGUMENT/BAD_OPTION", err.code .. "/" .. err.reason)
      assert.is_truthy(err.message:find("mpreg.with: " .. key .. ":", 1, true), err.message)
    end
    assert.is_false((pcall(mpreg.with, nil)))
    assert.is_not_nil(mpreg.with {})
    assert.is_not_nil(mpreg.with { needs = {}, timeout = 0.5, retries = 0, on = "n1" })
  end)
end)
