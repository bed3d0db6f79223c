-- The short form of `make soak-deploy`.

local soak = require "spec.support.deploy_soak"
local node = require "spec.support.node"

describe("deploys without end", function()
  after_each(node.stop_all)

  it("fail no call, lose none, show no run two versions, and leave all nodes alike", function()
    local r = soak.run { deploys = 20, bad = 5, calls = 20000, quiet_s = 0.5 }
    assert.are.same({}, r.failures)
    assert.are.equal(15, r.good)
    assert.are.equal(5, r.bad)
    assert.is_true(r.calls >= 20000 and r.runs > 0)
  end)
end)
