local fold = require "mpreg.repl.fold"

describe("mpreg.repl.fold", function()
  it("folds equal answers and names the odd ones", function()
    assert.are.equal("n1 n2 n4: 42\nn3: 41\n", fold.text {
      { node = "n3", text = "41\n" }, { node = "n4", text = "42\n" },
      { node = "n1", text = "42\n" }, { node = "n2", text = "42\n" },
    })
  end)

  it("puts failures last and answers of several lines below", function()
    assert.are.equal("n2:\n  a\n  b\nn4:\nn1 n3: error: gone\n", fold.text {
      { node = "n1", text = "error: gone\n", is_failure = true },
      { node = "n3", text = "error: gone\n", is_failure = true },
      { node = "n2", text = "a\nb\n" }, { node = "n4", text = "" },
    })
  end)

  it("says nothing of nobody, and of many only how many", function()
    assert.are.equal("", fold.text {})
    local answers = {}
    for i = 1, 18 do answers[i] = { node = ("n%02d"):format(i), text = "1" } end
    assert.truthy(fold.text(answers):find("n16 … (+2): 1\n", 1, true))
  end)
end)
