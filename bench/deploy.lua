--- The rows about deploys to three nodes. A row is as in bench/cluster.lua.
---
--- The nodes have one worker each and run on the same cores as whatever asks them.

local client = require "mpreg.client"
local codec = require "mpreg.codec"
local measure = require "bench.measure"

local M = {}

local MODULE_BYTES = 20000
local DEPLOYS = 100
local SWITCHES = 30
local ENDLESS_S = 2 -- for so long a module may load
local COMPUTES_S = 10
local MANY, FEW = 1000, 10 -- deploys, before memory is compared
local LET_GO_S = 11 -- code that nobody needs stays in memory for 8 s
local DEPLOY_EACH_S = 0.1 -- of these
local EVALS = 1000

-- ------------------------------------------------------------------------------------------------
-- A cluster, and what is deployed to it
-- ------------------------------------------------------------------------------------------------

local function must(what, value, err)
  if err ~= nil then error(("%s: %s"):format(what, tostring(err)), 0) end
  return value
end

local function connect(node)
  return must("a connection to " .. node.addr,
    client.connect { nodes = { node.addr }, timeout = 20 })
end

local clusters = 0

--- Three nodes that know each other, and a connection to each.
local function start()
  clusters = clusters + 1
  local nodes, clients = {}, {}
  for i = 1, 3 do
    nodes[i] = measure.start_node(("--workers 1 --cluster deploys%d --name n%d %s"):format(clusters,
      i, i > 1 and "--join " .. nodes[1].addr or ""))
    clients[i] = connect(nodes[i])
  end
  for i = 1, 3 do
    measure.wait_until("three nodes", function()
      return must("status", clients[i]:query "status").members.alive == 3
    end)
  end
  return nodes, clients
end

local function stop(nodes, clients)
  for _, c in ipairs(clients) do c:close() end
  for _, node in ipairs(nodes) do measure.stop(node.pid, "KILL") end
end

--- A module of so many bytes, most of them small functions with a comment each.
local function source(version, bytes)
  local parts = { ([[
--- A module that is deployed again and again.
local m = { _VERSION = "1.0.%d" }

--- Its version.
---@return integer
function m.version() return %d end
]]):format(version, version) }
  local size, k = #parts[1], 0
  while size < bytes - 250 do
    k = k + 1
    parts[#parts + 1] = ([[

--- The mean of what is in a list, for column %d.
---@param values number[]
---@return number
function m.mean%d(values)
  local sum = 0
  for i = 1, #values do sum = sum + values[i] end
  return #values > 0 and sum / #values or 0
end
]]):format(k, k)
    size = size + #parts[#parts]
  end
  parts[#parts + 1] = "\nreturn m\n"
  return table.concat(parts)
end

--- Deploys over a connection; the answer, and the time until it came in ms.
local function deploy(c, name, text)
  local payload = assert(codec.encode(codec.array { codec.array { name, text } }))
  local began = measure.now()
  local bytes, err = c:query_bytes("deploy", payload)
  local ms = (measure.now() - began) * 1000
  return codec.decode(must("deploy", bytes, err)), ms
end

local function percentile(list, share)
  table.sort(list)
  return list[math.ceil(#list * share)]
end

-- ------------------------------------------------------------------------------------------------
-- How long a deploy takes
-- ------------------------------------------------------------------------------------------------

local function measure_latency(rows, count)
  local nodes, clients = start()
  local told, asked, commands = {}, {}, {}
  for k = 1, count do
    local i = k % 3 + 1
    local text = source(2 * k, MODULE_BYTES)
    local answer, ms = deploy(clients[i], "m", text)
    told[k], asked[k] = answer.ms, ms
    local path = measure.write_file(measure.folder .. "/m.lua", source(2 * k + 1, MODULE_BYTES))
    local began = measure.now()
    local out = measure.capture(("exec %s/mpreg deploy %s -n %s -o json"):format(measure.build,
      path, nodes[i].addr))
    commands[k] = (measure.now() - began) * 1000
    if not out:find '"live"' then error("deploy: " .. out, 0) end
  end
  stop(nodes, clients)
  local p50 = percentile(told, 0.5)
  rows[#rows + 1] = { name = "deploy of 20 KB to three nodes, p50 of its `ms`", value = p50,
    unit = "ms", is_met = p50 <= 20, bar = "≤ 20",
    beside = ("p99 %.1f; asked over a connection: p50 %.1f, p99 %.1f"):format(
      percentile(told, 0.99), percentile(asked, 0.5), percentile(asked, 0.99)) }
  rows[#rows + 1] = { name = "the same, the whole command `mpreg deploy`, p50", unit = "ms",
    value = percentile(commands, 0.5), beside = ("p99 %.1f"):format(percentile(commands, 0.99)) }
end

-- ------------------------------------------------------------------------------------------------
-- From the first node's new version until all have it
-- ------------------------------------------------------------------------------------------------

local function measure_switch(rows, count)
  local nodes, clients = start()
  deploy(clients[1], "m", source(0, MODULE_BYTES))
  local gaps = {}
  for k = 1, count do
    local path = measure.write_file(measure.folder .. "/m.lua", source(k, MODULE_BYTES))
    local pid = measure.start("deploy", ("exec %s/mpreg deploy %s -n %s -o json"):format(
      measure.build, path, nodes[k % 3 + 1].addr))
    local seen, count_seen, first, last = {}, 0, nil, nil
    local deadline = measure.now() + 10
    while count_seen < 3 do
      for i = 1, 3 do
        if not seen[i] and must("m.version", clients[i]:call "m.version") == k then
          last = measure.now()
          first, seen[i], count_seen = first or last, true, count_seen + 1
        end
      end
      if measure.now() > deadline then error("a deploy was not live in 10 s", 0) end
    end
    gaps[k] = (last - first) * 1000
    measure.wait_until("the end of a command", function()
      return not measure.read_file(("/proc/%d/cmdline"):format(pid))
    end, 0.001)
    measure.stop(pid)
  end
  stop(nodes, clients)
  local p50 = percentile(gaps, 0.5)
  rows[#rows + 1] = { name = "first node serves the new version until all do, p50", value = p50,
    unit = "ms", is_met = gaps[#gaps] <= 20, bar = "≤ 20 for the longest",
    beside = ("the longest of %d: %.1f ms"):format(count, gaps[#gaps]) }
end

-- ------------------------------------------------------------------------------------------------
-- Bystanders
-- ------------------------------------------------------------------------------------------------

--- p99 of calls while `command` runs beside them in the background, and without.
local function beside(node, command, rate)
  local values = { with = {}, without = {} }
  for _ = 1, 3 do
    for _, which in ipairs { "without", "with" } do
      local pid = which == "with" and measure.start("command", "exec " .. command)
      measure.sleep(0.1)
      table.insert(values[which], measure.load(
        ("%s/mpreg bench call mpreg.echo 1 -c 64 --rate %d -d %dms -n %s -o json"):format(
          measure.build, rate, (ENDLESS_S - 0.3) * 1000, node.addr)).p99_us)
      measure.sleep(0.5)
      if pid then measure.stop(pid) end
    end
  end
  return measure.median(values.with), measure.median(values.without)
end

local function measure_bystanders(rows)
  local nodes, clients = start()
  local path = measure.write_file(measure.folder .. "/endless.lua", "while true do end\n")
  local ok, err = clients[1]:query_bytes("deploy",
    assert(codec.encode(codec.array { codec.array { "endless", "while true do end\n" } })))
  if ok or err.reason ~= "LOAD_TIMEOUT" then error("an endless loop was deployed", 0) end
  local with, without = beside(nodes[1], ("%s/mpreg deploy %s -n %s"):format(measure.build, path,
    nodes[1].addr), 20000)
  stop(nodes, clients)
  rows[#rows + 1] = { name = "20,000 calls a second while a module loops at load, p99",
    value = with / without, unit = "×", is_met = with <= 2 * without, bar = "≤ 2",
    beside = ("%.0f µs with, %.0f µs without"):format(with, without) }
end

-- ------------------------------------------------------------------------------------------------
-- Beside a function that computes
-- ------------------------------------------------------------------------------------------------

--- Times of deploys beside three processes that compute all the time.
local function deploys_beside(clients, first, commands)
  local pids, times = {}, {}
  for i, command in ipairs(commands) do pids[i] = measure.start("compute", command) end
  measure.sleep(0.5)
  local began = measure.now()
  for k = 1, 10 do
    local _, ms = deploy(clients[k % 3 + 1], "m", source(first + k, MODULE_BYTES))
    times[k] = ms
  end
  if measure.now() - began > COMPUTES_S - 1 then
    error(("ten deploys took as long as what computes: %.1f s"):format(measure.now() - began), 0)
  end
  for _, pid in ipairs(pids) do measure.stop(pid, "KILL") end
  return times
end

local function measure_computing(rows)
  local nodes, clients = start()
  deploy(clients[1], "busy", [[
local busy = { _VERSION = "1.0.0" }
function busy.compute(seconds)
  local till = os.clock() + seconds
  while os.clock() < till do end
end
return busy
]])
  deploy(clients[1], "m", source(0, MODULE_BYTES))
  local inside, outside = {}, {}
  for i = 1, 3 do
    inside[i] = ("exec %s/mpreg call busy.compute %d --on n%d -n %s -t 30s"):format(measure.build,
      COMPUTES_S, i, nodes[i].addr)
    outside[i] = "exec luajit -e 'while true do end'"
  end
  local others = percentile(deploys_beside(clients, 0, outside), 0.5)
  local times = deploys_beside(clients, 10, inside)
  stop(nodes, clients)
  local p50 = percentile(times, 0.5)
  rows[#rows + 1] = { name = "deploy while the only worker of each node computes for 10 s, p50",
    value = p50, unit = "ms", beside = ("the longest of %d: %.0f ms; beside three other processes "
      .. "that compute: p50 %.0f ms"):format(#times, times[#times], others) }
end

-- ------------------------------------------------------------------------------------------------
-- Memory
-- ------------------------------------------------------------------------------------------------

--- Resident memory of hosts and of workers, summed over the nodes.
local function memory(nodes)
  local host, workers = 0, 0
  for _, node in ipairs(nodes) do
    host = host + measure.memory_mib(node.pid, "Rss")
    for _, child in ipairs(measure.children(node.pid)) do
      local name = measure.read_file(("/proc/%d/cmdline"):format(child)) or ""
      if name:find "mpreg%-worker" then workers = workers + measure.memory_mib(child, "Rss") end
    end
  end
  return host / #nodes, workers / #nodes
end

local function measure_memory(rows, many)
  local nodes, clients = start()
  local hosts, workers = {}, {}
  for k = 1, many do
    local began = measure.now()
    deploy(clients[k % 3 + 1], "m", source(k, MODULE_BYTES))
    for i = 1, 3 do must("m.version", clients[i]:call "m.version") end
    if k == FEW or k == many / 2 or k == many then
      measure.sleep(LET_GO_S)
      hosts[k], workers[k] = memory(nodes)
    end
    measure.sleep(math.max(0, began + DEPLOY_EACH_S - measure.now()))
  end
  stop(nodes, clients)
  for _, row in ipairs { { "host", hosts }, { "worker", workers } } do
    local name, values = row[1], row[2]
    local growth = 100 * (values[many] / values[FEW] - 1)
    rows[#rows + 1] = { name = ("resident memory of a %s after %d deploys of one module")
      :format(name, many), value = growth, unit = "% more", is_met = growth <= 10, bar = "≤ 10",
      beside = ("after %d %.1f MiB, after %d %.1f, after %d %.1f"):format(FEW, values[FEW],
        many / 2, values[many / 2], many, values[many]) }
  end
end

-- ------------------------------------------------------------------------------------------------
-- The REPL
-- ------------------------------------------------------------------------------------------------

local function measure_repl(rows, evals)
  local nodes, clients = start()
  local times = {}
  for k = 1, evals do
    local began = measure.now()
    must("1+1", clients[1]:eval "1+1")
    times[k] = (measure.now() - began) * 1000
  end
  stop(nodes, clients)
  local p50 = percentile(times, 0.5)
  rows[#rows + 1] = { name = "`1+1` in a session of the REPL, p50", value = p50, unit = "ms",
    is_met = p50 <= 1, bar = "≤ 1", beside = ("p99 %.2f ms"):format(percentile(times, 0.99)) }
end

-- ------------------------------------------------------------------------------------------------

local PARTS = {
  { "deploy latency", measure_latency, DEPLOYS, 20 },
  { "deploy switch", measure_switch, SWITCHES, 10 },
  { "deploy bystanders", measure_bystanders },
  { "deploy computing", measure_computing },
  { "deploy memory", measure_memory, MANY, 100 },
  { "deploy repl", measure_repl, EVALS, 100 },
}

--- The rows of all parts whose name matches.
---@param opts table  is_quick, only: a pattern or nil
---@return table[]
function M.rows(opts)
  local rows = {}
  for _, part in ipairs(PARTS) do
    if not opts.only or part[1]:find(opts.only) then
      measure.say("%s", part[1])
      part[2](rows, part[opts.is_quick and 4 or 3])
    end
  end
  return rows
end

return M
