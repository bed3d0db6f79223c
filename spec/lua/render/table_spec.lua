local table_render = require "mpreg.render.table"

describe("render.table", function()
  local columns = { { title = "NAME" }, { title = "N", align = "right" }, { title = "NOTE" } }

  it("lines up", function()
    assert.are.equal([[
NAME     N  NOTE
a        1
longer  23  x
]], table_render.render(columns, { { "a", 1, "" }, { "longer", 23, "x" } }))
  end)

  it("counts columns, not bytes", function()
    assert.are.equal([[
NAME   N  NOTE
für    1  a
日本  22  b
]], table_render.render(columns, { { "für", 1, "a" }, { "日本", 22, "b" } }))
  end)

  it("cuts the widest column in a terminal, and nothing in a pipe", function()
    local rows = { { "a", 1, "a long remark on something" } }
    assert.are.equal("NAME  N  NOTE\na     1  a long rem…\n",
      table_render.render(columns, rows, { width = 20 }))
    assert.are.equal("NAME  N  NOTE\na     1  a long remark on something\n",
      table_render.render(columns, rows))
  end)

  it("cleans cells and colours the titles alone", function()
    assert.are.equal("\27[1mNAME     N  NOTE\27[0m\n\\x1b[2J     x\n",
      table_render.render(columns, { { "\27[2J", "", "x" } }, { color = true }))
  end)

  it("takes rows with missing cells", function()
    assert.are.equal("NAME  N  NOTE\na\n", table_render.render(columns, { { "a" } }))
    assert.are.equal("NAME  N  NOTE\n", table_render.render(columns, {}))
  end)
end)
