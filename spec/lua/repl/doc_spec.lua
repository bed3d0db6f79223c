local doc = require "mpreg.repl.doc"

describe("mpreg.repl.doc", function()
  local functions = {
    { name = "geo.grid.near", module = "geo.grid", version = "1.2.0", nodes = { "n1", "n2" },
      needs = { "map" }, doc = "What is near.\nIn degrees.", returns = "table[]",
      params = { { name = "at", type = "number[]", doc = "where" }, { name = "n" } } },
    { name = "geo.grid.far", module = "geo.grid", version = "1.2.0", nodes = { "n1" },
      params = {} },
  }
  local listed = {
    modules = { { name = "geo.grid", version = "1.2.0", origin = "loaded", nodes = { "n1" } } },
    pipelines = { { name = "quakes", nodes = { "n1" } } },
  }

  it("shows a function", function()
    assert.are.equal(table.concat({
      "geo.grid.near(at, n) → table[]", "  What is near.", "  In degrees.",
      "  at: number[]  where", "  n", "  → table[]",
      "  version 1.2.0 · on n1, n2 · needs map", "",
    }, "\n"), (doc.page("geo.grid.near", functions, listed)))
  end)

  it("shows a module with its functions, and a pipeline", function()
    local page = doc.page("geo.grid", functions, listed)
    assert.truthy(page:find("^geo.grid  version 1.2.0 · loaded · on n1\n"))
    assert.truthy(page:find("geo.grid.near(at, n) → table[]  What is near.", 1, true))
    assert.truthy(page:find("geo.grid.far()", 1, true))
    assert.are.equal("quakes  pipeline · on n1\n", (doc.page("quakes", functions, listed)))
  end)

  it("suggests what may have been meant", function()
    local page, hint = doc.page("geo.gird.near", functions, listed)
    assert.is_nil(page)
    assert.are.equal("did you mean geo.grid.near?", hint)
    assert.are.equal(":functions lists what there is", select(2, doc.page("x", functions, listed)))
  end)
end)
