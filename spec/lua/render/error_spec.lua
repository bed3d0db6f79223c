local render = require "mpreg.render.error"

describe("render.error", function()
  it("begins with code, reason and message, then says where, then what to do", function()
    assert.are.equal([[
error: NOT_FOUND/UNKNOWN_FUNCTION: no node has weather.claen
  in step clean[3], weather.claen 1.0.0, on n2, attempt 2
  at weather.lua:12 in clean (n2)
  at other.lua
hint: did you mean weather.clean?
]], render.text {
      code = "NOT_FOUND", reason = "UNKNOWN_FUNCTION", message = "no node has weather.claen",
      hint = "did you mean weather.clean?", fun = "weather.claen", step = "clean", index = 3,
      node = "n2", version = "1.0.0", attempt = 2,
      traceback = { { node = "n2", file = "weather.lua", line = 12, ["function"] = "clean" },
        { file = "other.lua" } },
    })
  end)

  it("needs no more than a code", function()
    assert.are.equal("error: NOT_FOUND: x\n  on n1\n",
      render.text { code = "NOT_FOUND", message = "x", node = "n1" })
    assert.are.equal("error: INTERNAL: \n", render.text { code = "INTERNAL" })
    assert.are.equal("error: UNKNOWN: x\n", render.text { message = "x" })
  end)

  it("lists all faults, lined up", function()
    assert.are.equal([[
error: INVALID_ARGUMENT/CYCLE: a -> b -> a
2 faults:
  CYCLE         a    a -> b -> a
  UNKNOWN_STEP  two  there is no step 'on' (did you mean one?)
]], render.text {
      code = "INVALID_ARGUMENT", reason = "CYCLE", message = "a -> b -> a",
      faults = {
        { reason = "CYCLE", step = "a", message = "a -> b -> a" },
        { reason = "UNKNOWN_STEP", step = "two", message = "there is no step 'on'",
          hint = "did you mean one?" },
      },
    })
  end)

  it("tells the causes, and stops", function()
    local err = { code = "UNKNOWN", reason = "FUNCTION_ERROR", message = "outer",
      cause = { code = "INTERNAL", message = "inner" } }
    assert.are.equal("error: UNKNOWN/FUNCTION_ERROR: outer\ncaused by: INTERNAL: inner\n",
      render.text(err))
    err.cause = err
    assert.is_true(#render.text(err) < 2000)
  end)

  it("prints nothing that a terminal would obey, and keeps lines of a message", function()
    assert.are.equal("error: UNKNOWN/\\x1b[2J: one\ntwo\\x07\n",
      render.text { code = "UNKNOWN", reason = "\27[2J", message = "one\ntwo\7" })
  end)
end)
