local styled = require "mpreg.repl.styled"

describe("mpreg.repl.styled", function()
  it("leaves colours and lines, and nothing else that a terminal obeys", function()
    assert.are.equal("\27[32m\"a\"\27[0m\n1", styled.clean "\27[32m\"a\"\27[0m\n1")
    assert.are.equal("\\x1b[2Jx\27[1;31m\\x07", styled.clean "\27[2Jx\27[1;31m\7")
    assert.are.equal("", styled.clean "")
  end)
end)
