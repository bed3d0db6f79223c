-- A tenth of all datagrams is lost, for 10^3 node-hours.

local node = require "spec.support.node"
local sim = require "spec.support.sim"

describe("with 10 % loss", function()
  after_each(node.stop_all)

  it("nobody is taken for dead, for ten hours of 100 nodes", function()
    local report = sim.live("membership", "--nodes", 100, "--loss", 10, "--hours", 10,
      "--crashes", 0)
    assert.is_true(report.virtual_seconds > 36000)
    assert.equal(0, report.false_deaths)
  end)
end)
