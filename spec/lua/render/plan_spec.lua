local render = require "mpreg.render.plan"

describe("render.plan", function()
  local plan = {
    name = "quakes", levels = { { "events", "end" }, { "by_net" } },
    steps = {
      { name = "events", call = "quakes.load", version = "1.0.0", node = "n1", level = 0,
        depends_on = {}, each = false, needs = { "catalogue" } },
      { name = "end", call = "m.f", node = "n1", level = 0, depends_on = {}, each = false,
        needs = {} },
      { name = "by_net", call = "quakes.summary", version = "1.0.0", node = "n2", level = 1,
        depends_on = { "events", "end" }, each = true, needs = {} },
    },
  }

  it("writes a table, level by level", function()
    assert.are.equal([[
Plan quakes · 2 levels · 3 steps · 2 nodes
LEVEL  STEP    CALLS                        NODE  NEEDS      AFTER
    0  events  quakes.load 1.0.0            n1    catalogue
       end     m.f                          n1
    1  by_net  quakes.summary 1.0.0 × each  n2               events, end
]], render.text(plan))
  end)

  it("writes Graphviz", function()
    assert.are.equal([[
digraph "quakes" {
  rankdir=LR;
  node [shape=box, style=rounded];
  "events" [label="events\nquakes.load 1.0.0\non n1"];
  "end" [label="end\nm.f\non n1"];
  "by_net" [label="by_net\nquakes.summary 1.0.0\non n2", peripheries=2];
  "events" -> "by_net";
  "end" -> "by_net";
}
]], render.dot(plan))
  end)

  it("writes Mermaid, also for steps whose names are words of its own", function()
    assert.are.equal([=[
flowchart LR
  s1["events<br/>quakes.load 1.0.0<br/>on n1"]
  s2["end<br/>m.f<br/>on n1"]
  s3[["by_net<br/>quakes.summary 1.0.0<br/>on n2"]]
  s1 --> s3
  s2 --> s3
]=], render.mermaid(plan))
  end)
end)
