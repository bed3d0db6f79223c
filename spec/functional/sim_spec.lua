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

  it("keeps every promise among many nodes, and does the same again", function()
    local cases = {
      { "mixed", "--nodes", 5, "--seed", 1, "--seeds", 3 },
      { "routing", "--nodes", 5, "--seed", 2, "--seeds", 3 },
      { "graph", "--nodes", 3, "--seed", 3, "--seeds", 3 },
      { "catalog", "--nodes", 6, "--seed", 4 },
      { "membership", "--nodes", 6, "--seed", 5, "--crashes", 5 },
      { "deploy", "--nodes", 4, "--seed", 6, "--seeds", 4 },
      { "topics", "--nodes", 4, "--seed", 7, "--seeds", 4 },
    }
    for _, case in ipairs(cases) do
      local args = { "-o", "json", unpack(case) }
      local first, second = sim(args), sim(args)
      assert.equal(0, first.code, table.concat(case, " ") .. ": " .. first.out)
      assert.equal(first.out, second.out)
      local report = cjson.decode(first.out)
      assert.is_true(report.ok)
      assert.equal(case[3], report.nodes)
      assert.is_true(report.converged_ms >= 0)
    end
  end)

  it("measures what the cluster takes", function()
    local report = cjson.decode(
      sim { "membership", "--nodes", 8, "--seed", 6, "--crashes", 10, "-o", "json" }.out)
    assert.equal(10, report.detected)
    assert.equal(0, report.false_deaths)
    assert.is_true(report.detect_ms_p50 > 0 and report.detect_ms_p99 >= report.detect_ms_p50)
    assert.is_true(report.bytes_per_node_s > 0)
    report = cjson.decode(sim { "catalog", "--nodes", 8, "--seed", 7, "-o", "json" }.out)
    assert.is_true(report.visible_ms_p50 > 0 and report.visible_ms_p99 >= report.visible_ms_p50)
  end)

  it("lets no node be taken for dead because datagrams are lost", function()
    local report = cjson.decode(sim { "membership", "--nodes", 10, "--seed", 8, "--loss", 10,
      "--crashes", 0, "-o", "json" }.out)
    assert.is_true(report.ok)
    assert.equal(0, report.false_deaths)
  end)

  it("notices a deliberate defect, by name, and says how to see it again", function()
    local args = { "routing", "--nodes", 5, "--defect", "retry-after-begin", "--seeds", 60,
      "-o", "json" }
    local result = sim(args)
    assert.equal(1, result.code)
    local report = cjson.decode(result.out)
    assert.is_false(report.ok)
    local broken = report.violations[1]
    assert.equal("begins", broken.invariant)
    assert.is_true(broken.at_ms > 0)
    local seed = result.err:match(
      "replay: mpreg%-sim routing %-%-nodes 5 %-%-seed (%d+) %-%-defect retry%-after%-begin\n")
    assert.equal(broken.seed, seed)
    local again = sim { "routing", "--nodes", 5, "--seed", seed, "--defect", "retry-after-begin",
      "-o", "json" }
    assert.equal(1, again.code)
    assert.same(broken, cjson.decode(again.out).violations[1])
  end)

  it("lists its defects", function()
    local result = sim { "--list-defects" }
    assert.equal(0, result.code)
    local count = 0
    for name in result.out:gmatch("([%w-]+) +[^\n]+\n") do
      assert.is_truthy(name:match("^%l[%l-]+$"))
      count = count + 1
    end
    assert.is_true(count >= 12)
  end)

  it("refuses what it does not understand, and says what", function()
    local cases = {
      { {}, "scenario is missing" },
      { { "weather" }, "unknown scenario weather" },
      { { "mixed", "--nodes", 1 }, "needs more nodes than 1" },
      { { "graph", "--nodes", 0 }, "needs more nodes than 0" },
      { { "deploy", "--nodes", 61 }, "takes at most 60 nodes" },
      { { "mixed", "--defect", "frogs" }, "unknown defect frogs" },
      { { "mixed", "--defect" }, "unknown defect" },
      { { "--check-defects", "--defect", "frogs" }, "unknown defect frogs" },
      { { "mixed", "--hours", 1 }, "belong to scenario membership" },
      { { "membership", "--loss", 101 }, "%-%-loss expects a number up to 100" },
      { { "membership", "--nodes", 4, "--slow", 3 }, "%-%-slow must leave" },
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
