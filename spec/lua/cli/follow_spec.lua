local codec = require "mpreg.codec"
local follow = require "mpreg.cli.follow"

describe("cli.follow", function()
  local events = {
    { event = "run_started", run_id = "01KB", seq = 1, at_ms = 0, name = "q", steps = 1,
      levels = 1 },
    { event = "step_succeeded", run_id = "01KB", seq = 2, at_ms = 2, step = "a", run_ms = 1.5,
      node = "n1", result = { 1, 2 } },
    { event = "run_finished", run_id = "01KB", seq = 3, at_ms = 2, status = "succeeded" },
  }
  local out, err

  local function output(more)
    local o = {
      write = function(_, text) out = out .. text end,
      draw = function(_, text) err = err .. text end,
      flush = function() end,
    }
    for key, value in pairs(more) do o[key] = value end
    return o
  end

  local function feed(more, opts)
    out, err = "", ""
    local on_event, done = follow.new(output(more), opts or {})
    for _, event in ipairs(events) do on_event((assert(codec.encode(event)))) end
    done()
    return out
  end

  it("prints an object a line", function()
    local seqs = {}
    for line in feed({ json = true }):gmatch("([^\n]+)\n") do
      seqs[#seqs + 1] = codec.json_decode(line).seq
    end
    assert.same({ { 1, 2, 3 }, "" }, { seqs, err })
  end)

  it("prints plain lines in a pipe, results if they are wanted", function()
    assert.equal([[
    0.0 ms  run_started      q  1 step, 1 level
    2.0 ms  step_succeeded   a  1.5 ms  on n1
            = { 1, 2 }
    2.0 ms  run_finished     succeeded
]], feed({}, { trace = true }))
    assert.is_nil(feed({}):find("= {", 1, true))
    assert.equal("", err)
  end)

  it("has the state below the lines on a terminal, and leaves nothing of it", function()
    local lines = feed({ can_draw = true, width = 80 })
    assert.equal(feed({}), lines)
    feed({ can_draw = true, width = 80 })
    local drawn = {}
    for status in err:gmatch("([^\r]+)\r\27%[K") do drawn[#drawn + 1] = status end
    assert.same({
      "q                    0 of 1 step · 0 of 1 level complete",
      "q  ████████████████  1 of 1 step · 0 of 1 level complete",
    }, drawn)
    assert.equal("\r\27[K", err:sub(-4))
  end)
end)
