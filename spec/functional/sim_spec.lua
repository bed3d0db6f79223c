-- mpreg-sim: what it prints, its exit codes, and that a seed gives the same world again.

local cjson = require "cjson"
local node = require "spec.support.node"

local SIM = node.bin() .. "-sim"

local function sim(args) return node.run(SIM, args) end

describe("mpreg-sim", function()
  after_each(node.stop_all)

  it("keeps every promise and gives the same digest for the same seed, twice", function()
    for seed = 1, 12 do
      local first = sim { "graph", "--nodes", 1, "--seed", seed, "-o", "json" }
      local second = sim { "-o", "json", "--seed=" .. seed, "graph" }
      assert.equal(0, first.code, "seed " .. seed .. ": " .. first.out)
      assert.equal(first.out, second.out, "seed " .. seed)
      local report = cjson.decode(first.out)
      assert.is_true(report.ok)
      assert.equal(0, #report.violations)
      assert.equal(0, report.lost)
      assert.equal(0, report.duplicated)
      assert.is_true(report.runs > 20)
      assert.is_true(report.virtual_seconds > 0)
      assert.is_truthy(report.digest:match("^%x+$"))
    end
  end)

  it("gives other digests for other seeds, and one for several", function()
    local seen = {}
    for seed = 20, 24 do
      local digest = cjson.decode(sim { "graph", "--seed", seed, "-o", "json" }.out).digest
      assert.is_nil(seen[digest])
      seen[digest] = true
    end
    local several = cjson.decode(sim { "graph", "--seed", 20, "--seeds", 5, "-o", "json" }.out)
    assert.is_true(several.ok)
    assert.is_true(several.succeeded > 0)
    assert.is_nil(seen[several.digest])
  end)

  it("refuses what it does not understand, and says what", function()
    local cases = {
      { {}, "scenario is missing" },
      { { "weather" }, "unknown scenario weather" },
      { { "graph", "--nodes", 3 }, "one node" },
      { { "graph", "--seed", "x" }, "%-%-seed expects a number" },
      { { "graph", "--seed" }, "%-%-seed expects a number" },
      { { "graph", "--seeds", "0" }, "at least 1" },
      { { "graph", "--frogs" }, "unknown flag %-%-frogs" },
      { { "graph", "graph" }, "unknown argument graph" },
      { { "graph", "-o", "xml" }, "%-o expects json" },
    }
    for _, case in ipairs(cases) do
      local result = sim(case[1])
      assert.equal(2, result.code, table.concat(case[1], " "))
      assert.equal("", result.out)
      assert.is_truthy(result.err:match("^error: .*" .. case[2]), result.err)
    end
  end)

  it("explains itself", function()
    local result = sim { "--help" }
    assert.equal(0, result.code)
    assert.is_truthy(result.out:match("usage: mpreg%-sim"))
    assert.is_truthy(result.out:match("example"))
  end)
end)
