--- Deploys without end to three real nodes that are busy: good and bad ones, rollbacks, undeploys,
--- while so many calls and runs are outstanding all the time. What comes of each call, run and
--- deploy is checked:
---
---   - no call fails and none is lost; a call that was sent after a change was done sees it, and
---     none sees what was refused
---   - a run sees one version, however it asks: on two nodes, nested, and through `require`
---   - what is good is live on all nodes, what is bad is refused with the right reason
---   - in the end all nodes agree: history, what is live, and what they serve
---
---     local soak = require "spec.support.deploy_soak"
---     local result = soak.run { deploys = 200, bad = 50, calls = 1000000, quiet_s = 10 }
---     result.failures       -- a list of texts; empty if all is well

local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local processors = require "spec.support.processors"
local uv = require "luv"

local M = {}

local OUTSTANDING = 64
local RUNS = 4
local TIMEOUT_MS = 30000
local SHOWN_MAX = 10 -- failures of one kind that are told each by itself
local ROLLBACK_EACH, SIDE_EACH = 12, 9 -- good changes

local function versioned(version, body)
  return ([[
--- What the soak deploys.
local m = { _VERSION = "%s" }

--- Its version.
---@return string
function m.version() return "%s" end
%s
return m
]]):format(version, version, body or "")
end

local OUTER = [[
local mpreg = require "mpreg"
local inner = require "inner"
local outer = { _VERSION = "1.0.0" }

--- The versions that it sees: required, and called on some nodes.
function outer.look(nodes)
  local seen = { inner.version() }
  for i = 1, #nodes do seen[#seen + 1] = mpreg.with { on = nodes[i] }.call("inner.version") end
  return seen
end

return outer
]]

--- Own files of the nodes, which an undeploy uncovers.
local SIDE = versioned "0.1.0"

local GRAPH = { name = "look", steps = {
  { name = "a", call = "inner.version", args = codec.array {}, on = "n1" },
  { name = "b", call = "outer.look", args = { { "n3", "n1" } }, after = { "a" }, on = "n2" },
  { name = "c", call = "inner.version", args = codec.array {}, after = { "b" }, on = "n3" },
}, output = { a = { ["$ref"] = "a" }, b = { ["$ref"] = "b" }, c = { ["$ref"] = "c" } } }

-- ------------------------------------------------------------------------------------------------
-- What is found
-- ------------------------------------------------------------------------------------------------

local function new_report()
  return { failures = {}, counts = {} }
end

--- Counts a failure, and keeps its text unless there are many of its kind.
local function fail(report, kind, format, ...)
  local count = (report.counts[kind] or 0) + 1
  report.counts[kind] = count
  if count <= SHOWN_MAX then
    report.failures[#report.failures + 1] = kind .. ": " .. format:format(...)
  end
end

-- ------------------------------------------------------------------------------------------------
-- What is live
-- ------------------------------------------------------------------------------------------------

--- The versions of one module: those that were live, in order. `done` of them are on all nodes;
--- while a change is under way there is one more.
local function new_module(name, first)
  return { name = name, versions = { first }, done = 1 }
end

--- Whether what was asked for when `done` changes were done may have had that answer.
local function may_answer(module, done, version)
  for i = done, #module.versions do
    if module.versions[i] == version then return true end
  end
  return false
end

-- ------------------------------------------------------------------------------------------------
-- The load
-- ------------------------------------------------------------------------------------------------

--- Keeps calls and runs outstanding. `load.times` gets the milliseconds of each call.
local function start_load(c, report, modules)
  local load = { times = {}, calls = 0, runs = 0, outstanding = 0, is_over = false }
  local targets = { modules.inner, modules.side, modules.inner, modules.inner }

  local function call(i, number)
    if load.is_over then return end
    local module = targets[number % #targets + 1]
    local r = c:client(i):call(module.name .. ".version", nil, { timeout_ms = TIMEOUT_MS })
    local done = module.done
    load.outstanding = load.outstanding + 1
    r.on_done = function()
      load.outstanding = load.outstanding - 1
      load.calls = load.calls + 1
      load.times[#load.times + 1] = r.ms
      if r.error then
        fail(report, "failed call", "%s.version at n%d: %s: %s", module.name, i, r.code,
          r.error.message)
      elseif not may_answer(module, done, r.result) then
        fail(report, "wrong answer", "%s.version at n%d: %s; live: %s", module.name, i,
          tostring(r.result), table.concat(module.versions, " ", done))
      end
      return call(i, number + 1)
    end
  end

  local function run(i)
    if load.is_over then return end
    local r = c:client(i):run(GRAPH, { timeout_ms = TIMEOUT_MS })
    local done = modules.inner.done
    load.outstanding = load.outstanding + 1
    r.on_done = function()
      load.outstanding = load.outstanding - 1
      load.runs = load.runs + 1
      local output = r.result and r.result.status == "succeeded" and r.result.output
      if not output then
        fail(report, "failed run", "at n%d: %s", i, assert(codec.json_encode(r.error or r.result)))
      else
        local first = output.a
        local seen = { output.a, output.c, unpack(output.b) }
        for _, version in ipairs(seen) do
          if version ~= first then
            fail(report, "run with two versions", "at n%d: %s", i, table.concat(seen, " "))
            break
          end
        end
        if not may_answer(modules.inner, done, first) then
          fail(report, "wrong answer", "a run at n%d: %s", i, tostring(first))
        end
      end
      return run(i)
    end
  end

  for k = 1, OUTSTANDING do call(k % 3 + 1, k) end
  for k = 1, RUNS do run(k % 3 + 1) end
  return load
end

--- Lets what is outstanding end; what does not is lost.
local function end_load(load, report)
  load.is_over = true
  local ok = pcall(node.eventually, function() return load.outstanding == 0 end, "all answers",
    TIMEOUT_MS / 1000 + 5)
  if not ok then
    for _ = 1, load.outstanding do fail(report, "lost", "a request was never answered") end
  end
end

--- Goes on for so long; gives the times of the calls that were answered meanwhile.
local function measure(load, condition, seconds)
  load.times = {}
  node.eventually(condition, "a phase of the load", seconds)
  local times = load.times
  load.times = {}
  return times
end

local function after(seconds)
  local till = uv.hrtime() + seconds * 1e9
  return function() return uv.hrtime() >= till end
end

--- The value below which that share of a list lies; sorts the list.
local function percentile(times, share)
  table.sort(times)
  return times[math.max(1, math.ceil(#times * share))] or 0
end

-- ------------------------------------------------------------------------------------------------
-- Changes
-- ------------------------------------------------------------------------------------------------

local Changes = {}
Changes.__index = Changes

local function new_changes(c, report, modules)
  local folder = c.folder .. "/code"
  assert(uv.fs_mkdir(folder, tonumber("700", 8)))
  return setmetatable({ c = c, report = report, modules = modules, folder = folder, minor = 0,
    good = 0, bad = 0, rollbacks = 0, undeploys = 0, asked = 0, ms = {} }, Changes)
end

function Changes:next_version()
  self.minor = self.minor + 1
  return ("1.%d.0"):format(self.minor)
end

function Changes:write(name, text)
  local path = ("%s/%s.lua"):format(self.folder, name)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  file:close()
  return path
end

--- Runs a command at one node after the other; exit code and document.
function Changes:command(args)
  self.asked = self.asked + 1
  args[#args + 1], args[#args + 2] = "-o", "json"
  local r = self.c[self.asked % 3 + 1]:spawn(args):wait()
  local document = codec.json_decode(r.out)
  if type(document) ~= "table" then
    document = { error = { code = "NONE", reason = "NONE", message = r.out .. r.err } }
  end
  return r.code, document
end

--- A change that is to succeed: `version` of the module is live afterwards.
function Changes:expect_good(module, version, args)
  module.versions[#module.versions + 1] = version
  local code, document = self:command(args)
  if code ~= 0 or document.error then
    fail(self.report, "good change refused", "%s: %s", table.concat(args, " "),
      document.error and document.error.message or "exit code " .. tostring(code))
    table.remove(module.versions)
    return
  end
  module.done = #module.versions
  self.ms[#self.ms + 1] = document.ms
  for _, n in ipairs(document.nodes) do
    if n.state ~= "live" then
      fail(self.report, "node not live", "%s is %s after %s", n.node, n.state,
        table.concat(args, " "))
    end
  end
  self.good = self.good + 1
end

function Changes:deploy(module)
  local version = self:next_version()
  self:expect_good(module, version,
    { "deploy", self:write(module.name, versioned(version)) })
end

function Changes:rollback(module)
  local entries = self:history(1, module.name)
  local live, previous = entries[1], nil
  for _, e in ipairs(entries) do
    if live.previous ~= codec.null and e.hash == live.previous then previous = e.version end
  end
  self.rollbacks = self.rollbacks + 1
  self:expect_good(module, previous, { "rollback", module.name })
end

function Changes:undeploy(module, uncovered)
  self.undeploys = self.undeploys + 1
  self:expect_good(module, uncovered, { "undeploy", module.name })
end

local BAD = {
  { "SYNTAX_ERROR", function() return "local m = {}\nfunction m.f( return 1 end\nreturn m\n" end },
  { "LOAD_ERROR", function() return "error 'no luck'\n" end },
  { "LOAD_TIMEOUT", function() return "while true do end\n" end },
  { "LOAD_ERROR", function() return "require 'nowhere.at.all'\nreturn {}\n" end },
  { "VERSION_REUSED", function(live) return versioned(live, "-- other bytes") end },
  { "VERSION_LOWER", function() return versioned "0.9.0" end },
  { "EXPECTATION_FAILED", function(_, self) return versioned(self:next_version()) end,
    { "--expect", ("0"):rep(64) } },
}

--- A deploy that is to be refused.
function Changes:expect_bad(module)
  local reason, source, flags = unpack(BAD[self.bad % #BAD + 1])
  self.bad = self.bad + 1
  local args = { "deploy", self:write(module.name, source(module.versions[module.done], self)) }
  for _, flag in ipairs(flags or {}) do args[#args + 1] = flag end
  local code, document = self:command(args)
  if code == 0 or not document.error then
    fail(self.report, "bad deploy accepted", "%s", reason)
  elseif document.error.reason ~= reason then
    fail(self.report, "bad deploy refused otherwise", "%s instead of %s: %s",
      tostring(document.error.reason), reason, document.error.message)
  end
end

--- The next good change: mostly a deploy of what everybody calls.
function Changes:one_good(number)
  local inner, side = self.modules.inner, self.modules.side
  if number % ROLLBACK_EACH == ROLLBACK_EACH - 1 then
    self:rollback(inner)
  elseif number % SIDE_EACH ~= 0 then
    self:deploy(inner)
  elseif number % (2 * SIDE_EACH) == 0 then
    self:undeploy(side, "0.1.0")
  else
    self:deploy(side)
  end
end

function Changes:all(count, bad)
  local number = 0
  for k = 1, count do
    if math.floor(k * bad / count) > math.floor((k - 1) * bad / count) then
      self:expect_bad(self.modules.inner)
    else
      number = number + 1
      self:one_good(number)
    end
  end
end

-- ------------------------------------------------------------------------------------------------
-- The end
-- ------------------------------------------------------------------------------------------------

function Changes:history(i, name)
  local r = self.c[i]:mpreg { "history", name, "-o", "json" }
  return r.code == 0 and assert(codec.json_decode(r.out)).entries or {}
end

--- What a node says of the deployed modules, as one text.
function Changes:view(i)
  local parts = {}
  for _, name in ipairs { "inner", "outer", "side" } do
    for _, e in ipairs(self:history(i, name)) do
      parts[#parts + 1] = ("%s %s %s %s %s"):format(name, e.action, tostring(e.version),
        tostring(e.hash), e.state)
    end
  end
  for _, m in ipairs(self.c:client(i):query("modules").modules) do
    if m.live then
      table.sort(m.nodes)
      parts[#parts + 1] = ("live %s %s %s"):format(m.name, m.hash, table.concat(m.nodes, " "))
    end
  end
  return table.concat(parts, "\n")
end

local function check_agreement(self)
  local first = self:view(1)
  for i = 1, 3 do
    local view = self:view(i)
    if view ~= first then
      fail(self.report, "nodes differ", "n1:\n%s\nn%d:\n%s", first, i, view)
    end
    for _, module in pairs(self.modules) do
      local version = self.c:result(i, module.name .. ".version")
      if version ~= module.versions[#module.versions] then
        fail(self.report, "nodes differ", "n%d serves %s %s instead of %s", i, module.name,
          tostring(version), module.versions[#module.versions])
      end
    end
  end
  local expected = self.good + 1 -- the first deploy of inner, and that of outer
  local _, entries = first:gsub("%f[%w]deploy %d", "")
  local _, others = first:gsub("\n%w+ rollback", "")
  local _, undeploys = first:gsub("%w+ undeploy", "")
  if entries + others + undeploys ~= expected + 1 then
    fail(self.report, "history", "%d changes instead of %d", entries + others + undeploys,
      expected + 1)
  end
end

-- ------------------------------------------------------------------------------------------------

local function phase(times)
  return { count = #times, p50 = percentile(times, 0.5), p99 = percentile(times, 0.99) }
end

local function joined(a, b)
  local list = {}
  for i = 1, #a do list[i] = a[i] end
  for i = 1, #b do list[#list + 1] = b[i] end
  return list
end

local function soak(c, opts, report)
  local modules = { inner = new_module("inner", "1.0.0"), side = new_module("side", "0.1.0") }
  local changes = new_changes(c, report, modules)
  local stolen = processors.stolen_from_now()
  for _, unit in ipairs { { "inner", versioned "1.0.0" }, { "outer", OUTER } } do
    local r = c[1]:mpreg { "deploy", changes:write(unit[1], unit[2]) }
    if r.code ~= 0 then error(r.out .. r.err, 0) end
  end
  local load = start_load(c, report, modules)
  local say = opts.say or function() end

  measure(load, after(1), 60) -- compiled, connected, warm
  say "before"
  local before = measure(load, after(opts.quiet_s), 600)
  say "with deploys"
  load.times = {}
  local began = uv.hrtime()
  changes:all(opts.deploys, opts.bad)
  local seconds = (uv.hrtime() - began) / 1e9
  local during = load.times
  say "after"
  local till = after(opts.quiet_s)
  local behind = measure(load, function() return till() and load.calls >= opts.calls end, 3600)
  end_load(load, report)
  local ok, problem = pcall(check_agreement, changes)
  if not ok then fail(report, "nodes differ", "they cannot be asked: %s", tostring(problem)) end
  return {
    failures = report.failures, counts = report.counts, calls = load.calls, runs = load.runs,
    good = changes.good, bad = changes.bad, rollbacks = changes.rollbacks,
    undeploys = changes.undeploys, seconds = seconds, stolen = stolen(),
    deploy_p50 = percentile(changes.ms, 0.5), deploy_p99 = percentile(changes.ms, 0.99),
    before = phase(before), during = phase(during),
    after = phase(behind),
    quiet = phase(joined(before, behind)),
  }
end

--- Starts three nodes, does all of it, and ends them.
---@param opts { deploys: integer, bad: integer, calls: integer, quiet_s: number,
---  say?: fun(phase: string) }  `bad` of the `deploys`; `calls`: so many at least; quiet_s: seconds
---  without deploys, before and after
---@return table result
function M.run(opts)
  local defs = {}
  for i = 1, 3 do defs[i] = { sources = { side = SIDE } } end
  local c = cluster.start("mesh", defs)
  local ok, result = xpcall(soak, debug.traceback, c, opts, new_report())
  local is_closed, problem = pcall(c.close, c)
  if not ok then error(result, 0) end
  if not is_closed then
    result.failures[#result.failures + 1] = "the end of a node: " .. tostring(problem)
  end
  return result
end

return M
