-- Each scenario with seeds of its own, and that its invariants notice what they are there for.

local node = require "spec.support.node"
local sim = require "spec.support.sim"

describe("scenario", function()
  after_each(node.stop_all)

  for _, words in ipairs {
    { "membership", "--nodes", 20, "--seeds", 5, "--crashes", 20 },
    { "catalog", "--nodes", 20, "--seeds", 5 },
    { "routing", "--nodes", 7, "--seeds", 100 },
    { "graph", "--nodes", 1, "--seeds", 100 },
    { "graph", "--nodes", 4, "--seeds", 50 },
    { "mixed", "--nodes", 24, "--seeds", 10 },
    { "deploy", "--nodes", 5, "--seeds", 200 },
    { "deploy", "--nodes", 9, "--seeds", 40 },
    { "topics", "--nodes", 5, "--seeds", 300 },
    { "topics", "--nodes", 9, "--seeds", 40 },
    { "topics", "--nodes", 50, "--seeds", 6 },
    -- Worlds that once broke a promise.
    { "mixed", "--nodes", 5, "--seed", 30582 }, -- one lost ping decided
    { "mixed", "--nodes", 4, "--seed", 35397 },
    { "mixed", "--nodes", 5, "--seed", 206500 }, -- a refused namesake's functions stayed
    { "mixed", "--nodes", 5, "--seed", 22629 },
    { "mixed", "--nodes", 5, "--seed", 22801 },
    { "mixed", "--nodes", 5, "--seed", 206595 },
    { "mixed", "--nodes", 5, "--seed", 25199 }, -- a generation was kept that was not raised
    { "mixed", "--nodes", 4, "--seed", 10487 }, -- who claimed a name asked again after 5 s only
    { "mixed", "--nodes", 7, "--seed", 1796000026059 }, -- what an element left behind went on
    { "mixed", "--nodes", 12, "--seed", 1795956198954 }, -- who leaves dialled a new boot for ever
    { "mixed", "--nodes", 7, "--seed", 1997000010165 }, -- no memory for the last event of a run
    { "mixed", "--nodes", 5, "--seed", 1897000017046 }, -- no memory for what a resumed run had
    { "mixed", "--nodes", 12, "--seed", 1997000020018 }, -- a call crossed the end of an idle link
    { "graph", "--nodes", 4, "--seed", 1998500015004 }, -- a refused link had another node's request
    { "mixed", "--nodes", 4, "--seed", 1998500056147 }, -- a watcher was told behind its link's end
    { "mixed", "--nodes", 4, "--seed", 1899900000228 }, -- two dead namesakes of one number
    { "deploy", "--nodes", 5, "--seed", 214 }, -- two changes of one node had one stamp
    { "deploy", "--nodes", 5, "--seed", 284 }, -- two nodes were forgotten while it was under way
    { "deploy", "--nodes", 5, "--seed", 343 }, -- who was told the same twice said that it was live
    { "deploy", "--nodes", 4, "--seed", 1921000005098 }, -- back to a deploy that never came
    { "deploy", "--nodes", 5, "--seed", 1970000052237 }, -- two namesakes had one stamp
    { "topics", "--nodes", 5, "--seed", 222 }, -- it waited for a node that did not know it
    { "topics", "--nodes", 5, "--seed", 1795938856032 }, -- a publisher's earlier life came last
  } do
    it(table.concat(words, " ") .. " keeps every promise", function()
      assert.is_true(sim.live(unpack(words)).ok)
    end)
  end

  it("has an invariant for each deliberate defect, which notices it", function()
    local result = node.run(node.bin() .. "-sim", { "--check-defects" }, { timeout = 120 })
    assert.equal(0, result.code, result.out)
    assert.is_nil(result.out:match("not caught"), result.out)
    local _, caught = result.out:gsub("caught by invariant", "")
    assert.is_true(caught >= 26)
  end)
end)
