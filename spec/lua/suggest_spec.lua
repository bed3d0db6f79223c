local suggest = require "mpreg.suggest"

describe("suggest", function()
  it("counts edits, a swap of neighbours as one", function()
    assert.are.equal(0, suggest.distance("plan", "plan"))
    assert.are.equal(1, suggest.distance("plan", "paln"))
    assert.are.equal(1, suggest.distance("plan", "plane"))
    assert.are.equal(3, suggest.distance("kitten", "sitting"))
    assert.are.equal(4, suggest.distance("", "plan"))
  end)

  it("finds the nearest word, and none if all are far", function()
    local known = { "node", "call", "run", "plan", "functions", "nodes", "modules", "bench" }
    assert.are.equal("functions", suggest.nearest("fucntion", known))
    assert.are.equal("call", suggest.nearest("CALL", known))
    assert.are.equal("nodes", suggest.nearest("ndoes", known))
    assert.is_nil(suggest.nearest("xyzzy", known))
    assert.is_nil(suggest.nearest("anything", {}))
    assert.is_nil(suggest.nearest(("x"):rep(1e6), known))
  end)

  it("words it as a question", function()
    assert.are.equal(", did you mean 'run'?", suggest.question("rnu", { "run", "plan" }))
    assert.are.equal("", suggest.question("xyzzy", { "run" }))
  end)
end)
