-- What a large cluster takes, against the bars.

local node = require "spec.support.node"
local sim = require "spec.support.sim"

local IDLE_MAX = 2500 -- bytes a second, 20 kbit/s

describe("a cluster", function()
  after_each(node.stop_all)

  it("of 100 knows a crash within 1.5 s at p50 and 3 s at p99, and idles on 20 kbit/s", function()
    local report = sim.live("membership", "--nodes", 100)
    assert.equal(200, report.detected)
    assert.is_true(report.detect_ms_p50 <= 1500, report.detect_ms_p50)
    assert.is_true(report.detect_ms_p99 <= 3000, report.detect_ms_p99)
    assert.equal(0, report.false_deaths)
    assert.is_true(report.bytes_per_node_s <= IDLE_MAX, report.bytes_per_node_s)
  end)

  it("of 1,000 knows a crash within 6 s, and idles on little more", function()
    local small = sim.live("membership", "--nodes", 100, "--crashes", 0)
    local report = sim.live("membership", "--nodes", 1000, "--crashes", 5)
    assert.equal(5, report.detected)
    assert.is_true(report.detect_ms_p99 <= 6000, report.detect_ms_p99)
    assert.is_true(report.bytes_per_node_s <= IDLE_MAX, report.bytes_per_node_s)
    assert.is_true(report.bytes_per_node_s <= 1.25 * small.bytes_per_node_s)
  end)

  it("calls a new function from each of 100 nodes within 1 s at p99", function()
    local report = sim.live("catalog", "--nodes", 100)
    assert.equal(200, report.added)
    assert.is_true(report.visible_ms_p99 <= 1000, report.visible_ms_p99)
  end)

  it("calls a new function from each of 1,000 nodes within 3 s at p99", function()
    local report = sim.live("catalog", "--nodes", 1000)
    assert.is_true(report.visible_ms_p99 <= 3000, report.visible_ms_p99)
  end)

  it("takes no healthy node for dead because 4 of 100 are slow", function()
    local report = sim.live("membership", "--nodes", 100, "--slow", 4, "--crashes", 50)
    assert.equal(0, report.false_deaths)
  end)

  it("is one again within 10 s of a partition of a day", function()
    local report = sim.live("membership", "--nodes", 8, "--partition", 86400, "--crashes", 0)
    assert.is_true(report.healed_ms <= 10000, report.healed_ms)
  end)
end)
