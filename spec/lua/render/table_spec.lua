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

  it("cuts no column that is to stay whole", function()
    local rows = { { "127.0.0.1:7400", "a long remark" } }
    assert.are.equal("ADDRESS         NOTE\n127.0.0.1:7400  a long …\n", table_render.render(
      { { title = "ADDRESS", whole = true }, { title = "NOTE" } }, rows, { width = 10 }))
  end)

  it("cleans cells and colours the titles alone", function()
    assert.are.equal("\27[1mNAME     N  NOTE\27[0m\n\\x1b[2J     x\n",
      table_render.render(columns, { { "\27[2J", "", "x" } }, { color = true }))
  end)

  it("colours cells by their text, without moving columns", function()
    local styled = { { title = "STATE", styles = { dead = "red", alive = "green" } },
      { title = "N", align = "right", styles = { ["0"] = "dim" } } }
    local rows = { { "dead", 0 }, { "alive", 10 }, { "odd", 1 } }
    assert.are.equal("\27[1mSTATE   N\27[0m\n\27[31mdead\27[0m    \27[2m0\27[0m\n"
      .. "\27[32malive\27[0m  10\nodd     1\n", table_render.render(styled, rows, { color = true }))
    assert.are.equal("STATE   N\ndead    0\nalive  10\nodd     1\n",
      table_render.render(styled, rows))
  end)

  it("takes rows with missing cells", function()
    assert.are.equal("NAME  N  NOTE\na\n", table_render.render(columns, { { "a" } }))
    assert.are.equal("NAME  N  NOTE\n", table_render.render(columns, {}))
  end)
end)
