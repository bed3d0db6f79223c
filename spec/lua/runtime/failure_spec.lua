local failure = require "mpreg.runtime.failure"

describe("runtime.failure", function()
  local function all(value) return type(value) ~= "function" end

  it("makes errors with a code, or with the code as the reason", function()
    local e = failure.new("NOT_FOUND", "gone", { hint = "look elsewhere", row = 3 })
    assert.are.equal("NOT_FOUND", e.code)
    assert.are.equal("FUNCTION_ERROR", e.reason)
    assert.are.equal("look elsewhere", e.hint)
    assert.are.equal(3, e.row)
    e = failure.new("NO_ROW", "gone")
    assert.are.equal("UNKNOWN", e.code)
    assert.are.equal("NO_ROW", e.reason)
    assert.is_true(failure.is_error(e))
    assert.is_false(failure.is_error({ code = "NOT_FOUND" }))
  end)

  it("prints where it happened", function()
    local e = failure.new("NOT_FOUND", "gone", { reason = "NO_ROW" })
    assert.are.equal("NOT_FOUND/NO_ROW: gone", tostring(e))
    e.fun = "m.f"
    assert.are.equal("NOT_FOUND/NO_ROW: gone (in m.f)", tostring(e))
    e.traceback = { { file = "m.lua", line = 7, node = "n1" } }
    assert.are.equal("NOT_FOUND/NO_ROW: gone (m.lua:7 on n1)", tostring(e))
    assert.are.equal("UNKNOWN: ", tostring(setmetatable({}, failure.metatable)))
  end)

  it("takes the position away only where a frame has it", function()
    local function frames()
      return { { file = "m.lua", line = 12, _short = "m.lua" } }
    end
    assert.are.equal("bad", failure.from("m.lua:12: bad", frames(), all).message)
    assert.are.equal("m.lua:13: bad", failure.from("m.lua:13: bad", frames(), all).message)
    assert.are.equal("x", failure.from("x", {}, all).message)
    local unknown = { { file = "m.lua", _short = "m.lua" } }
    local e = failure.from("m.lua:9: bad", unknown, all)
    assert.are.equal("bad", e.message)
    assert.are.same({ { file = "m.lua", line = 9 } }, e.traceback)
  end)

  it("keeps what can be sent and drops fields of the wrong type", function()
    local e = failure.from({ code = "ABORTED", message = 5, reason = {}, hint = 1, retry = "no",
      [1] = "x", f = print, data = { 1 }, index = 3 }, {}, all)
    assert.are.same({ code = "ABORTED", message = "5", reason = "FUNCTION_ERROR", index = 3,
      data = { 1 } }, setmetatable(e, nil))
    assert.is_false(failure.from({ retry = false, message = "m" }, {}, all).retry)
  end)

  it("appends frames behind those of the nested call", function()
    local e = failure.from({ message = "m", traceback = { { file = "x.lua" }, 7 } },
      { { file = "m.lua", line = 1, _short = "m.lua" } }, all)
    assert.are.same({ { file = "x.lua" }, { file = "m.lua", line = 1 } }, e.traceback)
  end)

  it("never fails itself", function()
    local bad = setmetatable({}, { __tostring = function() error("no") end })
    for _, value in ipairs { bad, { message = bad }, { code = {} }, true, 1, "", print,
      setmetatable({}, { __index = error }), { traceback = { traceback = {} } } } do
      local e = failure.from(value, {}, all)
      assert.are.equal("string", type(e.message))
      assert.are.equal("string", type(tostring(e)))
    end
    assert.are.equal("a nil was raised as an error", failure.from(nil, {}, all).message)
  end)
end)
