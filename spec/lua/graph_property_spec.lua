-- Random graphs through the graph core and through a naive evaluator: both must come to the same,
-- to the nanosecond. The summary's formulas are worked out again from the records.
--
-- MPREG_SEED=n repeats one; MPREG_GRAPHS=n sets how many: fewer with sanitizers, which take longer.
local mp = require "MessagePack"
local naive = dofile "spec/support/naive_graph.lua"

mp.set_array "without_hole"
mp.set_string "string_compat"

local SEED = tonumber(os.getenv "MPREG_SEED") or os.time() % 1000000
local GRAPHS = tonumber(os.getenv "MPREG_GRAPHS")
  or (os.getenv "MPREG_SANITIZED" and 4000 or 10000)
local BATCH = 1000
local DRIVER = (os.getenv "MPREG_BUILD" or "build") .. "/spec/spec-graph_driver"
local WORKERS = 1

-- --- making graphs ---

local function chance(p) return math.random() < p end
local function pick(list) return list[math.random(#list)] end

local PATHS = { "", "", ".rows", ".rows", ".rows[1]", ".rows[-1]", ".n", ".flag",
  ".deep.list[2].name", '["any key"]', ".rows[2].k", "[1]", "[-1]", ".missing", ".rows[9]", ".n.x",
  ".empty" }
local CODES = { "UNKNOWN", "UNAVAILABLE", "INTERNAL", "NOT_FOUND", "INVALID_ARGUMENT", "ABORTED" }

local function value()
  local rows = {}
  for i = 1, math.random(0, 5) do
    rows[i] = chance(0.5) and { k = i, name = "row" .. i } or math.random(100)
  end
  return { rows = rows, n = math.random(1000), flag = chance(0.5), empty = {}, ["any key"] = "a.b",
    deep = { list = { { name = "x" }, { name = "steps.one" } } } }
end

-- A reference to one of `names`, or to the input.
local function reference(names, depth)
  local path = pick(PATHS)
  if path == "" and chance(0.3) then path = ".rows" end
  local name = (#names == 0 or chance(0.1)) and "input" or pick(names)
  local ref = { ["$ref"] = name .. path }
  if chance(0.6) then
    if depth < 2 and chance(0.5) then
      ref.default = reference(names, depth + 1)
    else
      ref.default = chance(0.5) and { 1, { ["$lit"] = { ["$ref"] = "no.reference" } } } or "other"
    end
  end
  return ref
end

local function argument(names, has_each)
  local r = math.random()
  if r < 0.4 then return reference(names, 0) end
  if r < 0.5 then return { deep = { reference(names, 0), 7 } } end
  if r < 0.6 then return { ["$lit"] = { ["$ref"] = "x.y" } } end
  if has_each and r < 0.7 then return { ["$index"] = true } end
  if has_each and r < 0.9 then return { ["$item"] = chance(0.9) and "" or pick { "k", "name" } } end
  return pick { "one", "s1", 3, true, { a = 1 } }
end

local function step(name, names)
  local s = { name = name, call = "f." .. name, args = {}, after = {}, retries = 0, backoff_ms = 0 }
  local has_each = chance(0.3)
  if has_each then
    s.each = chance(0.4) and { 5, { k = 1 }, { name = "n" }, "x" } or reference(names, 0)
    if chance(0.5) then s.concurrency = math.random(3) end
  end
  for i = 1, math.random(0, 3) do s.args[i] = argument(names, has_each) end
  if #names > 0 and chance(0.15) then s.after[1] = pick(names) end
  if chance(0.15) then s.when = reference(names, 0) end
  if chance(0.1) then s.unless = reference(names, 0) end
  if chance(0.3) then s.retries = math.random(3) end
  local r = math.random()
  s.on_error = r < 0.25 and "skip" or r < 0.45 and { default = { d = 1 } } or nil
  if chance(0.1) then s.timeout_ms = math.random(5, 60) end
  return s
end

local function script(s)
  local x = { run = {}, queue = math.random(0, 1e6), network = math.random(0, 1e6),
    code = pick(CODES), final = chance(0.1), fails = {} }
  for i = 1, math.random(3) do x.run[i] = math.random(1, 5e7) end
  if chance(0.8) then x.result = value() end
  local p = s.on_error and 0.5 or 0.08
  for i = 0, 5 do
    if chance(p) then x.fails[tostring(i)] = math.random(3) end
  end
  return x
end

local function case()
  local count = chance(0.05) and math.random(10, 30) or math.random(1, 9)
  local names, steps, scripts = {}, {}, {}
  for i = 1, count do
    local near = {}
    for k = math.max(1, #names - 3), #names do near[#near + 1] = names[k] end
    local s = step("s" .. i, chance(0.3) and {} or near)
    steps[i], names[i], scripts[s.name] = s, s.name, script(s)
  end
  for i = count, 2, -1 do
    local k = math.random(i)
    steps[i], steps[k] = steps[k], steps[i]
  end
  local graph = { name = "random", steps = steps }
  if chance(0.4) then
    graph.output = {}
    for i = 1, math.random(0, 3) do
      graph.output["o" .. i] = chance(0.7) and { ["$ref"] = pick(names) } or reference(names, 1)
    end
  end
  if chance(0.2) then graph.timeout_ms = math.random(10, 120) end
  return { graph = graph, script = scripts, input = value(),
    config = { trace = true, workers = WORKERS, seed = math.random(1e6) } }
end

-- --- running them ---

local function write_all(path, text)
  local f = assert(io.open(path, "wb"))
  assert(f:write(text))
  assert(f:close())
end

local function read_all(path)
  local f = assert(io.open(path, "rb"))
  local text = f:read "*a"
  f:close()
  os.remove(path)
  return text
end

--- Runs the cases in the driver. When it fails, its input stays for another look.
local function drive(cases)
  local input, output, said, docs = os.tmpname(), os.tmpname(), os.tmpname(), {}
  for i, c in ipairs(cases) do docs[i] = mp.pack(c) end
  write_all(input, table.concat(docs))
  local status = os.execute(("%s <%s >%s 2>%s"):format(DRIVER, input, output, said))
  local text, complaint = read_all(output), read_all(said)
  if status ~= 0 and status ~= true then
    error(("MPREG_SEED=%d: `%s <%s` ended with status %s: %s"):format(SEED, DRIVER, input,
      tostring(status), complaint), 0)
  end
  os.remove(input)
  local answers = {}
  for _, answer in mp.unpacker(text) do answers[#answers + 1] = answer end
  assert(#answers == #cases)
  return answers
end

-- --- comparing ---

local function show(v)
  if type(v) ~= "table" then return type(v) == "string" and ("%q"):format(v) or tostring(v) end
  local keys, out = {}, {}
  for k in pairs(v) do keys[#keys + 1] = k end
  table.sort(keys, function(a, b) return tostring(a) < tostring(b) end)
  for i, k in ipairs(keys) do out[i] = tostring(k) .. "=" .. show(v[k]) end
  return "{" .. table.concat(out, " ") .. "}"
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then return a == b end
  for k, v in pairs(a) do if not same(v, b[k]) then return false end end
  for k in pairs(b) do if a[k] == nil then return false end end
  return true
end

local problems
local function expect(what, wanted, got)
  if not same(wanted, got) then
    problems[#problems + 1] = ("%s: wanted %s, got %s"):format(what, show(wanted), show(got))
  end
end
local function near(what, wanted, got)
  if type(wanted) ~= type(got) or (wanted and math.abs(wanted - got) > 0.0011) then
    problems[#problems + 1] =
      ("%s: wanted %s, got %s"):format(what, tostring(wanted), tostring(got))
  end
end

local function compare_error(what, wanted, got)
  if not wanted or not got then return expect(what, wanted, got) end
  for _, key in ipairs { "code", "reason", "step", "index", "attempt" } do
    if wanted[key] ~= nil then expect(what .. "." .. key, wanted[key], got[key]) end
  end
end

local function compare(wanted, answer)
  local run, results, records = answer.run, {}, {}
  expect("leaked", 0, answer.leaked)
  if not run then return expect("refused", nil, answer.refused) end
  for _, level in ipairs(run.levels) do for k, v in pairs(level.results) do results[k] = v end end
  for k, v in pairs(run.results or {}) do results[k] = v end
  for _, r in ipairs(run.steps) do records[r.name] = r end
  expect("status", wanted.status, run.status)
  expect("output", wanted.output, run.output)
  compare_error("error", wanted.error, run.error)
  near("total_ms", wanted.ended / 1e6, run.summary.total_ms)
  for _, w in ipairs(wanted.steps) do
    local r = records[w.name]
    expect(w.name .. ".status", w.status, r.status)
    expect(w.name .. ".attempts", w.attempts, r.attempts)
    expect(w.name .. ".level", w.level, r.level)
    expect(w.name .. ".result", w.result, results[w.name])
    expect(w.name .. ".defaulted", w.defaulted or nil, r.defaulted)
    expect(w.name .. ".items", w.items, w.items and r.items)
    near(w.name .. ".started", w.started and w.started / 1e6, r.started_ms)
    if w.ended then near(w.name .. ".ended", w.ended / 1e6, r.ended_ms) end
    if w.error or w.status == "succeeded" then
      compare_error(w.name .. ".error", w.error, r.error)
    end
  end
  local tries = 0
  for _, w in ipairs(wanted.steps) do tries = tries + w.tries end
  expect("retries", tries, run.summary.retries)
end

-- --- formulas ---

local function own_time(r)
  local sum = r.queue_ms + r.network_ms + r.run_ms
  return r.items and r.started_ms and math.min(sum, r.ended_ms - r.started_ms) or sum
end

local function check_path(run, records)
  local path, sum, longest = run.summary.critical_path, 0, nil
  local last
  for _, r in ipairs(run.steps) do
    if r.started_ms and (not last or r.ended_ms > last) then last = r.ended_ms end
  end
  if not last then return expect("critical_path", {}, path) end
  expect("its end", last, records[path[#path]].ended_ms)
  for i = #path, 1, -1 do
    local r, latest = records[path[i]], nil
    for _, name in ipairs(r.depends_on) do
      latest = math.max(latest or 0, records[name].ended_ms)
    end
    if r.started_ms then sum = sum + own_time(r) end
    if r.started_ms and (not longest or own_time(r) > longest) then longest = own_time(r) end
    expect("input of " .. path[i], latest, path[i - 1] and records[path[i - 1]].ended_ms)
  end
  near("critical_path_ms / 100", sum / 100, run.summary.critical_path_ms / 100)
  local bottleneck = records[run.summary.bottleneck_step]
  near("bottleneck", longest, own_time(bottleneck))
  expect("bottleneck_level", bottleneck.level, run.summary.bottleneck_level)
end

local function check_levels(run, records)
  local open, available, spans = {}, 0, {}
  for _, r in ipairs(run.steps) do
    local k, done = r.level + 1, r.status == "succeeded" or r.status == "skipped"
    open[k] = open[k] or not done
    spans[k] = spans[k] or {}
    if r.started_ms then
      spans[k].first = math.min(spans[k].first or math.huge, r.started_ms)
      spans[k].last = math.max(spans[k].last or 0, r.ended_ms)
    end
  end
  expect("levels", #spans, run.summary.levels)
  local complete = 0
  while complete < #spans and not open[complete + 1] do complete = complete + 1 end
  for k = 1, #spans do
    local span = spans[k].first and spans[k].last - spans[k].first or 0
    near("level_ms " .. k, span, run.summary.level_ms[k])
  end
  local seen = {}
  for i, level in ipairs(run.levels) do
    for _, name in ipairs(level.steps) do
      if records[name].status == "succeeded" then
        available = available + 1
        seen[available] = name
      end
    end
    expect("level", i - 1, level.level)
    expect("available", { unpack(seen) }, level.available)
    expect("available_count", available, level.available_count)
    near("progress", 100 * math.min(i, complete) / #spans, level.progress)
    near("duration_ms", run.summary.level_ms[i], level.duration_ms)
    expect("incomplete", i > complete, level.complete == false)
  end
end

local function check_formulas(answer)
  local run, records, sum, counts = answer.run, {}, 0, {}
  local nodes = {}
  for _, r in ipairs(run.steps) do
    records[r.name] = r
    sum = sum + r.run_ms
    counts[r.status] = (counts[r.status] or 0) + 1
    nodes[r.node or 0] = true
    for _, node in ipairs(r.nodes or {}) do nodes[node] = true end
  end
  nodes[0] = nil
  local names = {}
  for node in pairs(nodes) do names[#names + 1] = node end
  table.sort(names)
  expect("nodes", names, run.summary.nodes)
  expect("steps", #run.steps, run.summary.steps)
  for _, status in ipairs { "succeeded", "failed", "skipped", "cancelled", "timed_out" } do
    expect(status, counts[status] or 0, run.summary[status])
  end
  local total = run.summary.total_ms
  if total > 1 then near("parallelism", sum / total, run.summary.parallelism) end
  check_path(run, records)
  check_levels(run, records)
end

local function check_events(answer)
  local run, ended, levels = answer.run, {}, 0
  expect("events made when the run is over", answer.events, answer.late)
  for i, e in ipairs(answer.events) do
    expect("seq", i, e.seq)
    expect("run_id", run.run_id, e.run_id)
    if e.event == "level_completed" then
      expect("level in order", levels, e.level)
      levels = levels + 1
    elseif e.event:match "^step_[sf][uka][ci]" then
      ended[e.step] = (ended[e.step] or 0) + 1
    end
  end
  expect("first event", "run_started", answer.events[1].event)
  local last = answer.events[#answer.events]
  expect("last event", "run_finished", last.event)
  expect("its status", run.status, last.status)
  expect("its output", run.output, last.output)
  expect("its summary", run.summary, last.summary)
  for _, r in ipairs(run.steps) do
    local is_told = r.status == "succeeded" or r.status == "skipped" or r.status == "failed" or
      (r.status == "timed_out" and r.error.reason ~= "RUN_TIMEOUT")
    expect("ends told of " .. r.name, is_told and 1 or 0, ended[r.name] or 0)
  end
end

-- Calls check(case, answer) for `count` random graphs and fails with the first that has problems.
local function for_random_graphs(count, check)
  local tally = {}
  for first = 1, count, BATCH do
    local cases = {}
    for i = first, math.min(first + BATCH - 1, count) do
      math.randomseed(SEED * 100000 + i)
      for _ = 1, 5 do math.random() end
      cases[#cases + 1] = case()
    end
    for i, answer in ipairs(drive(cases)) do
      problems = {}
      check(cases[i], answer)
      local status = answer.run and answer.run.status or "refused"
      tally[status] = (tally[status] or 0) + 1
      if problems[1] then
        error(("MPREG_SEED=%d, graph %d:\n  %s\n%s\n%s"):format(SEED, first + i - 1,
          table.concat(problems, "\n  "), show(cases[i]), show(answer.run or answer.refused)), 0)
      end
    end
  end
  return tally
end

-- --- going on with a run ---

-- What succeeded is preset for a second run of the same, the rest runs again.
local function resumed(c, answer)
  local results, presets = {}, {}
  for _, level in ipairs(answer.run.levels) do
    for name, result in pairs(level.results) do results[name] = result end
  end
  for _, s in ipairs(c.graph.steps) do
    if results[s.name] ~= nil and chance(0.7) then presets[s.name] = results[s.name] end
  end
  return { graph = c.graph, script = c.script, input = c.input, config = c.config,
    presets = next(presets) and presets or nil }
end

local function check_resumed(first, c, answer)
  expect("leaked", 0, answer.leaked)
  expect("events made when the run is over", answer.events, answer.late)
  expect("status", first.run.status, answer.run.status)
  if first.run.status == "succeeded" then
    expect("output", first.run.output, answer.run.output)
  end
  local preset = 0
  for _, r in ipairs(answer.run.steps) do
    if c.presets and c.presets[r.name] ~= nil then
      preset = preset + 1
      expect(r.name .. ".status", "succeeded", r.status)
      expect(r.name .. ".attempts", 0, r.attempts)
      expect(r.name .. ".started_ms", nil, r.started_ms)
      expect(r.name .. ".node", "n9", r.node)
      expect("event " .. preset + 1, "step_succeeded", answer.events[preset + 1].event)
      expect("its step", r.name, answer.events[preset + 1].step)
    end
  end
  check_levels(answer.run, (function()
    local records = {}
    for _, r in ipairs(answer.run.steps) do records[r.name] = r end
    return records
  end)())
end

describe("the graph core", function()
  it("agrees with a naive evaluator on random graphs", function()
    local tally = for_random_graphs(GRAPHS, function(c, answer)
      compare(naive(c.graph, c.script, c.input, WORKERS), answer)
    end)
    print(("# MPREG_SEED=%d: %d graphs %s"):format(SEED, GRAPHS, show(tally)))
    assert.is_nil(tally.refused)
    for _, status in ipairs { "succeeded", "failed", "timed_out" } do
      assert.is_true(tally[status] > GRAPHS / 50, "too few runs " .. status)
    end
  end)

  it("tells the summary and the levels that the formulas give", function()
    for_random_graphs(math.min(GRAPHS, 1000), function(_, answer) check_formulas(answer) end)
  end)

  it("tells events without gaps that say the same as the run", function()
    for_random_graphs(math.min(GRAPHS, 1000), function(_, answer) check_events(answer) end)
  end)

  it("comes to the same when what succeeded before is preset", function()
    local cases, firsts = {}, {}
    for_random_graphs(math.min(GRAPHS, 1000), function(c, answer)
      if answer.run.status ~= "timed_out" and not c.graph.timeout_ms then
        cases[#cases + 1], firsts[#firsts + 1] = resumed(c, answer), answer
      end
    end)
    for i, answer in ipairs(drive(cases)) do
      problems = {}
      check_resumed(firsts[i], cases[i], answer)
      if problems[1] then
        error(("MPREG_SEED=%d, resumed graph %d:\n  %s\n%s\n%s"):format(SEED, i,
          table.concat(problems, "\n  "), show(cases[i]), show(answer.run or answer.refused)), 0)
      end
    end
    assert.is_true(#cases > 0)
  end)
end)
