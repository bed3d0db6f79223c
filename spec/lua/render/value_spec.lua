local render = require "mpreg.render.value"

describe("render.value", function()
  it("writes scalars as Lua does", function()
    assert.are.equal("nil", render.text(nil))
    assert.are.equal("true", render.text(true))
    assert.are.equal("5", render.text(5))
    assert.are.equal("0.1", render.text(0.1))
    assert.are.equal("0.30000000000000004", render.text(0.1 + 0.2))
    assert.are.equal("0/0", render.text(0 / 0))
    assert.are.equal("-math.huge", render.text(-1 / 0))
    assert.are.equal('"a\\"b\\\\\\n\\x1b"', render.text 'a"b\\\n\27')
    assert.are.equal("<function>", render.text(print))
    assert.are.equal("9007199254740993LL", render.text(9007199254740993LL))
  end)

  it("writes tables with sorted keys, on one line if that fits", function()
    assert.are.equal("{}", render.text {})
    assert.are.equal('{ 1, 2, a = "x", ["b c"] = { c = true }, ["end"] = 1 }',
      render.text { 1, 2, ["b c"] = { c = true }, a = "x", ["end"] = 1 })
    assert.are.equal([[
{
  "aaaaaaaaaaaaaaa",
  {
    "bbbbbbbbbbbbbbb",
    "ccccccccccccccc",
  },
}]], render.text({ ("a"):rep(15), { ("b"):rep(15), ("c"):rep(15) } }, { columns = 30 }))
  end)

  it("has limits, and knows cycles", function()
    assert.are.equal("{ 1, 2, … (+3) }", render.text({ 1, 2, 3, 4, 5 }, { items = 2 }))
    assert.are.equal("{ { {…} } }", render.text({ { { 1 } } }, { depth = 2 }))
    local cycle = {}
    cycle[1] = cycle
    assert.are.equal("{ {…} }", render.text(cycle))
  end)
end)
