local args = require "mpreg.cli.args"
local cli = require "mpreg.cli"
local codec = require "mpreg.codec"
local commands = require "spec.support.commands"
local complete = require "mpreg.cli.complete"

local ANSWERS = {
  functions = { functions = {
    { name = "rooms.mean", version = "1.0.0", nodes = { "n1", "n2" },
      doc = "The mean of what a room's\nsensor read. And more." },
    { name = "rooms.mean", version = "1.1.0", nodes = { "n2" }, doc = "Another." },
    { name = "rooms.max", version = "1.0.0", nodes = { "n1" } },
    { name = "geo.grid.cell", version = "0.0.0", nodes = { "n1" }, doc = codec.null },
  } },
  nodes = { nodes = {
    { name = "n1", state = "alive", addr = "127.0.0.1:7400", cluster = "default",
      resources = { "gpu", "catalogue" } },
    { name = "n2", state = "suspect", addr = "127.0.0.1:7401", cluster = "default",
      resources = { "gpu" } },
    { name = "n3", state = "dead", addr = "127.0.0.1:7402", cluster = "default",
      resources = { "tape" } },
  } },
  modules = {
    modules = { { name = "rooms", version = "1.1.0", nodes = { "n1", "n2" } },
      { name = "geo", version = "1.0.0", origin = "deployed", live = true, nodes = { "n1" } },
      { name = "stats", version = "1.0.0", origin = "loaded", live = true, nodes = { "n1" } } },
    pipelines = { { name = "house", nodes = { "n1" }, origin = "deployed" } },
  },
  runs = { runs = { { run_id = "01KB", name = "house", status = "failed", started_at = 0 },
    { run_id = "01KA", name = codec.null, status = "succeeded", started_at = 0 } } },
  trace = { steps = { { name = "means", call = "rooms.mean", status = "succeeded" },
    { name = "spread", call = "stats.summary", status = "failed" } } },
  history = { module = "geo", entries = {
    { at = 0, action = "rollback", version = "1.0.0", hash = "aa", state = "live" },
    { at = 0, action = "undeploy", version = codec.null, hash = codec.null, state = "superseded" },
    { at = 0, action = "deploy", version = "1.1.0", hash = "bb", state = "superseded" },
    { at = 0, action = "deploy", version = "1.1.0", hash = "bb", state = "superseded" },
    { at = 0, action = "deploy", version = "1.0.0", hash = "aa", state = "superseded" },
    { at = 0, action = "deploy", version = "0.9.0", hash = "cc", state = "overtaken" },
  } },
}

local asked
before_each(function() asked = {} end)

local function ask(what, nodes, options)
  asked[#asked + 1] = nodes and what .. " " .. table.concat(nodes, " ") or what
  if options and options.run then asked[#asked] = asked[#asked] .. " of " .. options.run end
  if options and options.module then asked[#asked] = asked[#asked] .. " of " .. options.module end
  return ANSWERS[what]
end

--- The candidates after `mpreg`, the words being apart by one space, sorted; and the offers.
local function offers(line)
  local words = {}
  for word in (line .. " "):gmatch("(.-) ") do words[#words + 1] = word end
  local found = complete.candidates(words, ask)
  local list = {}
  for i, offer in ipairs(found) do list[i] = offer[1] end
  table.sort(list)
  return list, found
end

local function help_of(line, word)
  local _, found = offers(line)
  for _, offer in ipairs(found) do
    if offer[1] == word then return offer[2] end
  end
end

local function listed()
  local list = {}
  for i, command in ipairs(cli.commands()) do list[i] = command[1] end
  table.sort(list)
  return list
end

local function has(list, word)
  for _, candidate in ipairs(list) do
    if candidate == word then return true end
  end
  return false
end

describe("cli.complete", function()
  it("offers the commands, and itself not", function()
    assert.same(listed(), (offers ""))
    assert.same({ "functions", "forget" }, { (offers "fu")[1], (offers "forg")[1] })
    assert.equal("Call a function and print its result.", help_of("ca", "call"))
    assert.same({}, (offers "compl"))
    assert.same(listed(), (offers "help "))
    assert.same({}, asked)
  end)

  it("offers what may stand before a command", function()
    assert.same({ "--help", "--node", "--output", "--timeout", "--version" }, (offers "--"))
    assert.same({ "call" }, (offers "-n 127.0.0.1:1 -ojson cal"))
    assert.same({ "json" }, (offers "-o js"))
    assert.same({ "--wait" }, (offers "-o json call --w"))
  end)

  it("offers each command's flags with their help", function()
    for _, name in ipairs(listed()) do
      local command = require("mpreg.cli." .. name).command
      local list = offers(name .. " --")
      for _, flag in ipairs(command.flags) do
        local long = flag[1]:match("%-%-[%w-]+$")
        assert.is_true(has(list, long), name .. " " .. long)
        assert.equal(flag[3], help_of(name .. " --", long))
      end
      assert.equal(#command.flags, #list)
    end
    assert.same({}, asked)
  end)

  it("offers short flags too, once a - is there", function()
    local list = offers "nodes -"
    assert.is_true(has(list, "-o") and has(list, "--output"))
    assert.same({ "--help", "--node", "--output", "--timeout" }, (offers "nodes "))
    assert.same({ "-o" }, (offers "nodes -o"))
  end)

  it("offers a flag again only if it may be repeated", function()
    local list = offers "call a.b --wait --on n1 --need gpu --"
    assert.same({ false, false, true }, { has(list, "--wait"), has(list, "--on"),
      has(list, "--need") })
    assert.same({}, (offers "call a.b -ojson --outp"))
  end)

  it("offers the words that a flag takes, in the same word too", function()
    assert.same({ "json", "text" }, (offers "nodes -o "))
    assert.same({ "json" }, (offers "nodes --output j"))
    assert.same({ "--output=json", "--output=text" }, (offers "nodes --output="))
    assert.same({ "-ojson" }, (offers "nodes -oj"))
    assert.same({ "dot", "json", "mermaid", "text" }, (offers "plan x --format "))
    assert.same({ "debug", "error", "info", "warn" }, (offers "node --log-level "))
    assert.same({}, asked)
  end)

  it("offers only words that the flag accepts", function()
    local checked = 0
    for _, name in ipairs(listed()) do
      for _, flag in ipairs(require("mpreg.cli." .. name).command.flags) do
        if flag[2] and flag[2]:find("^%l+|") and flag.type then
          local long = flag[1]:match("%-%-[%w-]+$")
          for _, word in ipairs((offers(name .. " " .. long .. " "))) do
            assert.equal(word, flag.type(word))
            checked = checked + 1
          end
        end
      end
    end
    assert.is_true(checked >= 20)
  end)

  it("has files where files are meant", function()
    local function paths(line)
      local _, found = offers(line)
      return { found.files or false, found.folders or false }
    end
    assert.same({ "", false }, paths "node --load ex")
    assert.same({ "--load=", false }, paths "node --load=ex")
    assert.same({ false, "" }, paths "node --data ")
    assert.same({ "", false }, paths "node --config ")
    assert.same({ "", false }, paths "run ./ex")
    assert.same({ "", false }, paths "plan ")
    assert.same({ "@", false }, paths "run house --input @da")
    assert.same({ "--input=@", false }, paths "run house --input=@da")
    assert.same({ false, false }, paths "run house --input {")
    assert.same({ "@", false }, paths "call a.b @da")
    assert.same({ "", false }, paths "call a.b 1 da")
    assert.same({ false, false }, paths "call a.b {")
    assert.same({ false, false }, paths "call a")
    assert.same({ false, false }, paths "nodes ")
  end)

  it("offers functions by name, with the first sentence of their help", function()
    assert.same({ "geo.grid.cell", "rooms.max", "rooms.mean" }, (offers "call "))
    assert.same({ "rooms.max", "rooms.mean" }, (offers "call rooms."))
    assert.same({ "rooms.mean" }, (offers "call --wait -t 5s rooms.me"))
    assert.same({ "rooms.mean" }, (offers "call -- rooms.me"))
    assert.equal("The mean of what a room's sensor read.", help_of("call r", "rooms.mean"))
    assert.equal("", help_of("call g", "geo.grid.cell"))
  end)

  it("offers for bench what it measures", function()
    assert.same({ "call", "pub", "run" }, (offers "bench "))
    assert.same({}, (offers "bench pub r"))
    assert.same({ "rooms.max", "rooms.mean" }, (offers "bench call r"))
    local list, found = offers "bench -c 4 run "
    assert.same({ "house" }, list)
    assert.equal("", found.files)
    assert.same({}, (offers "bench cal r"))
  end)

  it("offers nodes by name and by address", function()
    assert.same({ "n1", "n2" }, (offers "call a.b --on "))
    assert.same({ "--on=n1", "--on=n2" }, (offers "status --on=n"))
    assert.equal("alive, 127.0.0.1:7400", help_of("status --on ", "n1"))
    assert.same({ "127.0.0.1:7400", "127.0.0.1:7401" }, (offers "nodes -n "))
    assert.same({ "127.0.0.1:7401" }, (offers "node --join 127.0.0.1:7400 --join 127.0.0.1:7401"))
    assert.same({}, (offers "node --listen "))
  end)

  it("offers to forget those that can be forgotten, else those that are there", function()
    assert.same({ "n3" }, (offers "forget "))
    local all = ANSWERS.nodes
    finally(function() ANSWERS.nodes = all end)
    ANSWERS.nodes = { nodes = { all.nodes[1] } }
    assert.same({ "n1" }, (offers "forget "))
  end)

  it("offers pipelines, and asks nobody about a path", function()
    assert.same({ "house" }, (offers "run h"))
    assert.equal("pipeline, on n1", help_of("plan ", "house"))
    asked = {}
    assert.same({}, (offers "run examples/"))
    assert.same({}, (offers "run ./ho"))
    assert.same({}, asked)
  end)

  it("offers modules, resources, clusters and versions", function()
    assert.same({ "rooms.*", "rooms.max", "rooms.mean" }, (offers "functions ro"))
    assert.same({ "catalogue", "gpu" }, (offers "call a.b --need "))
    assert.equal("on n1, n2", help_of("call a.b --need ", "gpu"))
    assert.same({ "default" }, (offers "call a.b --cluster "))
    assert.same({ "1.0.0", "1.1.0" }, (offers "call rooms.mean --version "))
    assert.same({ "--version=1.0.0" }, (offers "bench call rooms.max --version="))
    assert.same({}, (offers "call --version "))
  end)

  it("offers modules where a command takes one", function()
    local plan = require "mpreg.cli.plan".command
    local arguments = plan.arguments
    finally(function() plan.arguments = arguments end)
    plan.arguments = { { "MODULE" } }
    assert.same({ "geo", "rooms", "stats" }, (offers "plan "))
    assert.equal("1.1.0, on n1, n2", help_of("plan r", "rooms"))
  end)

  it("offers what was deployed where that is meant, paths and nodes to deploy", function()
    for _, name in ipairs { "rollback", "undeploy", "history" } do
      assert.same({ "geo", "house" }, (offers(name .. " ")))
      assert.equal("1.0.0, on n1", help_of(name .. " g", "geo"))
      assert.equal("pipeline, on n1", help_of(name .. " ", "house"))
    end
    assert.same({ "n1", "n2" }, (offers "deploy x.lua --only "))
    assert.same({ "--skip=n2" }, (offers "deploy --skip=n2"))
    local _, found = offers "deploy a.lua ge"
    assert.equal("", found.files)
    _, found = offers "dev "
    assert.equal("", found.folders)
    assert.same({}, (offers "node --par"))
  end)

  it("completes versions that a module can be rolled back to", function()
    assert.are.same({ "0.9.0", "1.1.0" }, (offers "rollback geo --to "))
    assert.are.same({ "history of geo" }, asked)
    assert.are.same({ "--to=1.1.0" }, (offers "rollback geo --to=1"))
    assert.truthy(help_of("rollback geo --to ", "1.1.0"):find("^bb, deployed "))
    asked = {}
    assert.are.same({}, (offers "rollback --to "))
    assert.are.same({}, asked)
  end)

  it("offers recent runs, the newest first, and the steps of the one that is named", function()
    for _, command in ipairs { "trace", "why", "cancel", "resume" } do
      local _, found = offers(command .. " ")
      assert.same({ "last", "01KB", "01KA" }, { found[1][1], found[2][1], found[3][1] }, command)
      assert.truthy(found[2][2]:find("^house, failed, %d+%-"), found[2][2])
      assert.truthy(found[3][2]:find("^a graph, succeeded, "), found[3][2])
    end
    asked = {}
    assert.same({ "means", "spread" }, (offers "trace 01KB --result "))
    assert.equal("stats.summary, failed", help_of("resume 01KB --from=", "--from=spread"))
    assert.same({ "trace of 01KB", "trace of 01KB" }, asked)
    assert.same({ "spread" }, (offers "resume last --from sp"))
    assert.same({ "timed_out" }, (offers "runs --status t"))
  end)

  it("asks the nodes that the line names", function()
    offers "call -n 127.0.0.1:1 --node=127.0.0.1:2 -n127.0.0.1:3 ro"
    offers "-n 127.0.0.1:4 call ro"
    offers "call ro"
    assert.same({ "functions 127.0.0.1:1 127.0.0.1:2 127.0.0.1:3", "functions 127.0.0.1:4",
      "functions" }, asked)
  end)

  it("offers nothing where nothing more may stand, or it cannot know", function()
    for _, line in ipairs { "forget n3 x", "nodes x", "nodes -- ", "frobnicate ", "frobnicate --o",
      "call a.b --retries ", "call a.b --frob=", "nodes --help=", "node --name ", "nodes -zo" } do
      assert.same({}, (offers(line)), line)
    end
  end)

  it("passes over what is wrong before the cursor", function()
    assert.same({ "n1", "n2" }, (offers "call --frob --on "))
    assert.same({ "--wait" }, (offers "call --on --wai"))
    assert.same({ "json" }, (offers "call a.b --on --output j"))
  end)

  it("offers nothing live without a node", function()
    for _, line in ipairs { "call ", "forget ", "status --on ", "run ", "call a.b --need " } do
      local words = {}
      for word in (line .. " "):gmatch("(.-) ") do words[#words + 1] = word end
      assert.equal(0, #complete.candidates(words, function() return nil end), line)
      assert.equal(0, #complete.candidates(words, function() return "nonsense" end), line)
    end
  end)

  it("prints a line for each, and one for files", function()
    local r = commands.run("complete", { "--", "run", "h" }, ask)
    assert.same({ 0, "house\tpipeline, on n1\n:files\t\n", { "modules" } },
      { r.code, r.out, r.asked })
    r = commands.run("complete", { "--", "nodes", "--outp" }, error)
    assert.same({ 0, "--output\t" .. args.OUTPUT[3] .. "\n" }, { r.code, r.out })
    assert.equal("", commands.run("complete", { "--", "frob", "" }, error).out)
    r = commands.run("complete", {}, error)
    assert.truthy(r.out:find("^node\tStart a node%.\n"))
  end)

  it("prints no control characters from elsewhere", function()
    local r = commands.run("complete", { "--", "call", "" }, function()
      return { functions = { { name = "a.b", doc = "Red\27[31m\tand\nso." } } }
    end)
    assert.equal("a.b\tRed\\x1b[31m and so.\n", r.out)
  end)

  it("is silent about failures", function()
    local r = commands.run("complete", { "--", "call", "" }, function()
      return nil, { code = "UNAVAILABLE", reason = "DRAINING", message = "no" }
    end)
    assert.same({ 0, "" }, { r.code, r.out })
    r = commands.run("complete", { "--", "call", "-n", "nonsense", "" }, error)
    assert.same({ 0, "", {} }, { r.code, r.out, r.asked })
  end)
end)
