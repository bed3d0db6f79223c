-- Outputs stand here as they are.
-- luacheck: no max line length

local codec = require "mpreg.codec"
local error_render = require "mpreg.render.error"
local render = require "mpreg.render.deploy"

local A, B = ("3fa9c1d2"):rep(8), ("8a771b02"):rep(8)

describe("render.deploy", function()
  it("says what was deployed, and what it replaced", function()
    local module = { module = "quakes", version = "1.2.0", hash = A, previous = B, kind = "module" }
    assert.equal("deployed quakes 1.2.0 (3fa9c1d2), was 1.1.0 (8a771b02)",
      render.line("deploy", module, { was = { quakes = { version = "1.1.0", hash = B } } }))
    -- The hash alone, when somebody else was faster.
    assert.equal("deployed quakes 1.2.0 (3fa9c1d2), was 8a771b02",
      render.line("deploy", module, { was = { quakes = { version = "1.0.0", hash = A } } }))
    module.previous = codec.null
    assert.equal("deployed quakes 1.2.0 (3fa9c1d2), new", render.line("deploy", module))
    module.previous, module.kind = A, "pipeline"
    assert.equal("unchanged pipeline quakes 1.2.0 (3fa9c1d2)", render.line("deploy", module))
  end)

  it("does not say a hash twice", function()
    local module = { module = "m", version = "1.2.0+3fa9c1d2", hash = A, previous = B }
    assert.equal("deployed m 1.2.0+3fa9c1d2, was 1.1.0+a.8a771b02", render.line("deploy", module,
      { was = { m = { version = "1.1.0+a.8a771b02", hash = B } } }))
    module.version = "1.2.0+8a771b02"
    assert.equal("deployed m 1.2.0+8a771b02 (3fa9c1d2), was 8a771b02",
      render.line("deploy", module))
  end)

  it("leaves the nodes out where nothing happened", function()
    local answer = { module = "m", version = "1.0.0", hash = A, previous = A, unchanged = true,
      nodes = { { node = "n1", state = "live", ms = 0 } } }
    assert.equal("unchanged m 1.0.0 (3fa9c1d2)\n", render.text("deploy", answer))
    answer.nodes[1].state = "behind"
    assert.truthy(render.text("deploy", answer):find("n1    behind", 1, true))
  end)

  it("says what was rolled back and undeployed", function()
    assert.equal("rolled back quakes to 1.1.0 (8a771b02), was 3fa9c1d2", render.line("rollback",
      { module = "quakes", version = "1.1.0", hash = B, previous = A }))
    assert.equal("undeployed quakes, was 1.2.0 (3fa9c1d2)", render.line("undeploy",
      { module = "quakes", version = codec.null, hash = codec.null, previous = A },
      { was = { quakes = { version = "1.2.0", hash = A } } }))
    assert.equal("undeployed quakes, was 3fa9c1d2", render.line("undeploy",
      { module = "quakes", previous = A }))
  end)

  it("writes a line for each module, then the nodes, lined up", function()
    assert.equal([[
deployed geo 1.0.0 (3fa9c1d2), new
deployed quakes 1.2.0 (8a771b02), was 3fa9c1d2

NODE  STATE      TIME  NOTE
n1    live     3.1 ms
n2    live    12.0 ms
n3    behind           catches up before it serves
]], render.text("deploy", {
      module = "geo", modules = {
        { module = "geo", version = "1.0.0", hash = A, kind = "module" },
        { module = "quakes", version = "1.2.0", hash = B, previous = A, kind = "module" } },
      nodes = { { node = "n1", state = "live", ms = 3.14 }, { node = "n2", state = "live", ms = 12 },
        { node = "n3", state = "behind", ms = codec.null } },
    }))
    assert.equal("deployed geo 1.0.0 (3fa9c1d2), new\n",
      render.text("deploy", { module = "geo", version = "1.0.0", hash = A }))
  end)

  it("colours states, and obeys nothing that comes from elsewhere", function()
    local out = render.text("deploy", { module = "g\27[2J", version = "1\n", hash = A,
      nodes = { { node = "n1", state = "failed" } } }, { color = true })
    assert.truthy(out:find("\27[1mg\\x1b[2J\27[0m 1\\n (3fa9c1d2)", 1, true), out)
    assert.truthy(out:find("\27[31mfailed\27[0m", 1, true), out)
  end)

  it("shows the nodes of a deploy that failed below its error", function()
    assert.equal([[
error: INVALID_ARGUMENT/LOAD_ERROR: quakes.lua:3: no file
  on n2
  NODE  STATE     TIME  NOTE
  n1    staged  3.1 ms
  n2    failed          INVALID_ARGUMENT/LOAD_ERROR: quakes.lua:3: no file
hint: so it is
]], error_render.text { code = "INVALID_ARGUMENT", reason = "LOAD_ERROR", node = "n2",
      message = "quakes.lua:3: no file", hint = "so it is", nodes = {
        { node = "n1", state = "staged", ms = 3.1 },
        { node = "n2", state = "failed", error = { code = "INVALID_ARGUMENT",
          reason = "LOAD_ERROR", message = "quakes.lua:3: no file" } } } })
  end)

  it("lists a history, in local time", function()
    local at = os.time { year = 2026, month = 11, day = 28, hour = 20, min = 47, sec = 10 } * 1000
    assert.equal([[
WHEN                 ACTION    VERSION  HASH      PREVIOUS  BY      NODE  STATE       NOTE
2026-11-28T20:47:10  undeploy                     3fa9c1d2  ann@pc  n1    live
2026-11-28T20:46:10  deploy    1.2.0    3fa9c1d2  8a771b02  ann@pc  n2    superseded  only n1, n2, n3, +1
2026-11-28T20:45:10  deploy    1.1.0    8a771b02            bob@pc  n1    overtaken
]], render.history { module = "quakes", entries = {
      { at = at, action = "undeploy", version = codec.null, hash = codec.null, previous = A,
        by = "ann@pc", node = "n1", state = "live" },
      { at = at - 60000, action = "deploy", version = "1.2.0", hash = A, previous = B,
        by = "ann@pc", node = "n2", state = "superseded", scope = "only",
        nodes = { "n1", "n2", "n3", "n4" } },
      { at = at - 120000, action = "deploy", version = "1.1.0", hash = B, previous = codec.null,
        by = "bob@pc", node = "n1", state = "overtaken" } } })
  end)

  it("says which entries are a pipeline's where a module may have its name", function()
    local out = render.history { module = "m", entries = {
      { at = 0, action = "deploy", kind = "module", version = "1.0.0", hash = A, by = "ann@pc",
        node = "n1", state = "live" },
      { at = 0, action = "deploy", kind = "pipeline", version = "1.0.0", hash = B, by = "ann@pc",
        node = "n1", state = "live" } } }
    assert.equal([[
ACTION  KIND      VERSION
deploy  module    1.0.0
deploy  pipeline  1.0.0
]], (out:gsub("[^\n]*(ACTION  KIND      VERSION).-\n", "%1\n")
      :gsub("[^\n]*(deploy  %l+ +1%.0%.0).-\n", "%1\n")))
  end)
end)
