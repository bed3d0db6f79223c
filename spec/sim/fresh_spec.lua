-- Worlds that nobody has lived through: each run of the tests takes other seeds, prints the first,
-- and takes it from MPREG_SEED. Each lives twice, to the same digest.

local node = require "spec.support.node"
local sim = require "spec.support.sim"

local FIRST = tonumber(os.getenv("MPREG_SEED") or "") or os.time()

describe("fresh seeds of mixed", function()
  after_each(node.stop_all)

  for i, nodes in ipairs { 4, 5, 7, 9, 12 } do
    local seed = string.format("%d", FIRST * 1000 + 200 * (i - 1))
    it(("keep every promise, twice the same: 200 from %s, %d nodes (MPREG_SEED=%d)"):format(
      seed, nodes, FIRST), function()
      local first = sim.live("mixed", "--nodes", nodes, "--seed", seed, "--seeds", 200)
      local second = sim.live("mixed", "--nodes", nodes, "--seed", seed, "--seeds", 200)
      assert.equal(first.digest, second.digest)
      assert.is_true(first.succeeded > 0 and first.crashes > 0 and first.remote_calls > 0)
    end)
  end
end)

describe("fresh seeds of deploy", function()
  after_each(node.stop_all)

  local seed = string.format("%d", FIRST * 1000)
  it(("keep every promise, twice the same: 100 from %s (MPREG_SEED=%d)"):format(
    seed, FIRST), function()
    local first = sim.live("deploy", "--nodes", 4, "--seed", seed, "--seeds", 100)
    local second = sim.live("deploy", "--nodes", 4, "--seed", seed, "--seeds", 100)
    assert.equal(first.digest, second.digest)
    assert.is_true(first.changes > 100 and first.changes_refused > 100)
  end)
end)

describe("fresh seeds of topics", function()
  after_each(node.stop_all)

  local seed = string.format("%d", FIRST * 1000)
  it(("keep every promise, twice the same: 100 from %s (MPREG_SEED=%d)"):format(
    seed, FIRST), function()
    local first = sim.live("topics", "--nodes", 5, "--seed", seed, "--seeds", 100)
    local second = sim.live("topics", "--nodes", 5, "--seed", seed, "--seeds", 100)
    assert.equal(first.digest, second.digest)
    assert.is_true(first.delivered > 10000 and first.dropped > 0 and first.crashes > 0)
  end)
end)
