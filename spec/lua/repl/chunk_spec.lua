local chunk = require "mpreg.repl.chunk"

describe("mpreg.repl.chunk", function()
  it("takes an expression, statements and nothing as whole", function()
    for _, text in ipairs { "1 + 1", "x = 5", "return 1, 2", "f()", "", "  ", "-- a remark",
      "for i = 1, 2 do\n print(i)\nend", "a.b" } do
      assert.is_true(chunk.is_whole(text), text)
    end
  end)

  it("waits for the rest of what has only begun", function()
    for _, text in ipairs { "for i = 1, 2 do", "f(", "{ 1,", "x =", "1 +", "[[ text", "--[[ remark",
      "function f()\n  return 1\n", "if x then y() else", "return f(" } do
      assert.is_false(chunk.is_whole(text), text)
    end
  end)

  it("leaves what is wrong to the node", function()
    for _, text in ipairs { "1 1", "end", '"open', "x = = 1", "f(]" } do
      assert.is_true(chunk.is_whole(text), text)
    end
  end)

  it("tells commands from Lua", function()
    assert.are.same({ "nodes", "" }, { chunk.command ":nodes" })
    assert.are.same({ "on", "n2" }, { chunk.command "  :on   n2 " })
    assert.are.same({ "time", "f(1, 2)" }, { chunk.command ":time f(1, 2)" })
    assert.are.same({ "time", "(1)" }, { chunk.command ":time(1)" })
    assert.is_nil(chunk.command "::again::")
    assert.is_nil(chunk.command "x:y()")
    assert.is_nil(chunk.command "1")
  end)

  it("knows when there is nothing to run", function()
    assert.is_true(chunk.is_blank " \n\t")
    assert.is_false(chunk.is_blank " x ")
  end)
end)
