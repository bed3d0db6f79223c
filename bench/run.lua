-- The benchmarks; called by bench/run.sh: run.lua BUILD FOLDER [--quick] [--json] [--only REGEX]
--
-- All servers run side by side, idle but for the one that is measured. Rows are measured in blocks
-- that alternate between them, three times over, and the medians count: a machine that slows down
-- for a while slows all of them down. Peers are measured by bench-peer, a node by `mpreg bench`;
-- both are the same load generator.
--
-- A bar is a ratio to a peer measured in the same run where that peer is installed, else a number
-- of calls a second.

package.path = "./?.lua;./lua/?.lua;./lua/?/init.lua;" .. package.path

local cluster = require "bench.cluster"
local deploy = require "bench.deploy"
local measure = require "bench.measure"

local BUILD, FOLDER = arg[1], arg[2]
local QUICK, JSON, ONLY = false, false, nil
do
  local i = 3
  while arg[i] do
    if arg[i] == "--quick" then
      QUICK = true
    elseif arg[i] == "--json" then
      JSON = true
    elseif arg[i] == "--only" then
      i = i + 1
      ONLY = arg[i]
    else
      io.stderr:write("bench: unknown argument ", arg[i], "\n")
      os.exit(2)
    end
    i = i + 1
  end
end
local SECONDS = QUICK and 0.3 or 1.5
local REPETITIONS = 3
local MIB = 1048576

measure.build, measure.folder = BUILD, FOLDER
local capture, has, median, now, say, wait_until = measure.capture, measure.has, measure.median,
  measure.now, measure.say, measure.wait_until

-- ------------------------------------------------------------------------------------------------
-- Servers
-- ------------------------------------------------------------------------------------------------

-- A port that was free a moment ago.
local function free_port()
  local pid, port = measure.start_echo("port" .. tostring(os.clock()):gsub("%D", ""))
  measure.stop(pid)
  return port
end

local servers = {} -- name → { pid =, port = | addr = }

local function start_servers()
  servers.node = measure.start_node "--load bench/modules"
  local pid, echo_port = measure.start_echo "echo"
  servers.echo = { pid = pid, port = echo_port }
  if has "redis-server" then
    local port = free_port()
    servers.redis = { port = port, pid = measure.start("redis",
      ("redis-server --port %d --bind 127.0.0.1 --save '' --appendonly no --dir %s"):format(port,
        FOLDER)) }
    wait_until("Redis", function()
      return (measure.read_file(FOLDER .. "/redis.out") or ""):find "Ready to accept"
    end)
    if not (measure.read_file(FOLDER .. "/redis.out")):find "version=[789]" then
      say("Redis is older than 7 and has no FCALL: left out")
      servers.redis = nil
    end
  end
  if has "tarantool" then
    local port = free_port()
    servers.tarantool = { port = port,
      pid = measure.start("tarantool",
        ("tarantool bench/tarantool.lua %d %s"):format(port, FOLDER)) }
    wait_until("Tarantool", function()
      return (measure.read_file(FOLDER .. "/tarantool.out") or ""):find "ready"
    end)
  end
end

local function pin(cores)
  local pids = {}
  for _, server in pairs(servers) do pids[#pids + 1] = server.pid end
  measure.pin(cores, pids)
end

-- ------------------------------------------------------------------------------------------------
-- Measuring
-- ------------------------------------------------------------------------------------------------

-- row: bytes or fib or graph, outstanding, connections, pinned.
local function measure_one(name, row, seconds)
  local prefix = row.pinned and "taskset -c 0 " or ""
  local command
  if name == "node" then
    local what = row.graph and "run " .. row.graph
      or row.fib and "call bench.fib " .. row.fib or "call mpreg.echo @" .. row.argument
    command = ("%s%s/mpreg bench %s -c %d --connections %d -d %dms -n %s -o json"):format(prefix,
      BUILD, what, row.outstanding, row.connections, seconds * 1000, servers.node.addr)
  else
    command = ("%s%s/bench/bench-peer %s %d -c %d -k %d -d %g %s"):format(prefix, BUILD, name,
      servers[name].port, row.outstanding, row.connections, seconds,
      row.fib and "--fib " .. row.fib or "-s " .. row.bytes)
  end
  return measure.load(command)
end

-- Two bare LuaJIT processes (or as many as there are cores, if fewer).
local function measure_bare(seconds)
  local command = ("for i in 1 2; do luajit bench/fib.lua %g & done; wait"):format(seconds)
  local sum = 0
  for n in capture(command):gmatch "[%d.]+" do sum = sum + tonumber(n) end
  return { calls_per_s = sum }
end

-- ------------------------------------------------------------------------------------------------
-- Rows
-- ------------------------------------------------------------------------------------------------

local function independent(count)
  local steps = {}
  for i = 1, count do
    steps[i] = ('{"name":"s%d","call":"bench.tiny","args":[%d]}'):format(i, i)
  end
  return measure.graph("independent", steps)
end

local function diamond(width)
  local steps, refs = { '{"name":"first","call":"bench.tiny","args":[1]}' }, {}
  for i = 1, width do
    steps[#steps + 1] = ('{"name":"m%d","call":"bench.tiny","args":[{"$ref":"first"}]}'):format(i)
    refs[i] = ('{"$ref":"m%d"}'):format(i)
  end
  steps[#steps + 1] = ('{"name":"last","call":"bench.count","args":[[%s]]}'):format(
    table.concat(refs, ","))
  return measure.graph("diamond", steps)
end

local function rows()
  local echo = { "redis", "tarantool", "echo" }
  local list = {
    { name = "echo 32 B, 1 outstanding, one core", key = "p50_us", bytes = 32, outstanding = 1,
      connections = 1, pinned = true, peers = echo, limit = 25 },
    { name = "echo 32 B, 1 outstanding", key = "p50_us", bytes = 32, outstanding = 1,
      connections = 1, peers = echo, limit = 40 },
    { name = "echo 32 B, 1 connection x 64", bytes = 32, outstanding = 64, connections = 1,
      peers = echo, ratio = { "redis", 1.5 }, floor = 700e3 },
    { name = "echo 32 B, 64 connections x 1", bytes = 32, outstanding = 64, connections = 64,
      peers = echo, ratio = { "redis", 1 }, floor = 145e3 },
    { name = "echo 32 B, 64 connections x 16", bytes = 32, outstanding = 1024, connections = 64,
      peers = echo, ratio = { "redis", 1.5 }, floor = 1.2e6 },
    { name = "echo 1 KiB, 1 connection x 64", bytes = 1024, outstanding = 64, connections = 1,
      peers = echo, ratio = { "redis", 1.5 }, floor = 480e3 },
    { name = "echo 1 MiB, 1 outstanding", bytes = MIB, outstanding = 1, connections = 1,
      peers = echo, floor = 1354 },
    { name = "fib(20), 16 outstanding", fib = 20, outstanding = 16, connections = 1,
      peers = { "redis", "tarantool", "luajit" }, ratio = { "luajit", 0.75 } },
    { name = "1,000 independent steps", unit = "steps/s", steps = 1000, graph = independent(1000),
      outstanding = 1, connections = 1, peers = {}, floor = 100e3 },
    { name = "1 -> 100 -> 1", unit = "steps/s", steps = 102, graph = diamond(100),
      outstanding = 1, connections = 1, peers = {}, floor = 100e3 },
  }
  for _, row in ipairs(list) do
    row.key = row.key or "calls_per_s"
    row.unit = row.unit or (row.key == "p50_us" and "us, p50" or "calls/s")
    if row.bytes then row.argument = measure.text_file(row.bytes) end
    row.values = {}
  end
  return list
end

local function measure_row(row, seconds)
  local function note(name, figures)
    local values = row.values[name] or {}
    values[#values + 1] = figures[row.key] * (row.steps or 1)
    row.values[name] = values
  end
  if row.pinned then pin "0" end
  note("node", measure_one("node", row, seconds))
  for _, peer in ipairs(row.peers) do
    if peer == "luajit" then
      note(peer, measure_bare(seconds))
    elseif servers[peer] then
      note(peer, measure_one(peer, row, seconds))
    end
  end
  if row.pinned then pin(measure.all_cores()) end
end

-- Whether the bar is met, and the bar in words.
local function judge(row)
  local ours = row.median.node
  if row.limit then return ours <= row.limit, ("<= %g"):format(row.limit) end
  local peer = row.ratio and row.median[row.ratio[1]]
  if peer then
    return ours >= row.ratio[2] * peer, (">= %g x %s"):format(row.ratio[2], row.ratio[1])
  elseif row.floor then
    return ours >= row.floor, (">= %g"):format(row.floor)
  end
  return nil, "no peer"
end

-- ------------------------------------------------------------------------------------------------
-- An idle node
-- ------------------------------------------------------------------------------------------------

local function start_ms()
  local began = now()
  local pipe = assert(io.popen("exec " .. BUILD .. "/mpreg node --listen 127.0.0.1:0 2>/dev/null"))
  local line = pipe:read "*l" or ""
  local ms = (now() - began) * 1000
  local pid = line:match '"pid":(%d+)'
  if not pid then error("a node did not start: " .. line, 0) end
  os.execute("kill " .. pid)
  pipe:close()
  return ms
end

local function idle_rows()
  local times = {}
  for i = 1, QUICK and 5 or 11 do times[i] = start_ms() end
  local node = measure.start_node "--load bench/modules"
  measure.sleep(0.3)
  local host, resident, own = measure.memory_mib(node.pid, "Rss"), 0, 0
  for _, worker in ipairs(measure.children(node.pid)) do
    resident = math.max(resident, measure.memory_mib(worker, "Rss"))
    own = math.max(own, measure.memory_mib(worker, "Pss"))
  end
  measure.stop(node.pid)
  local function row(name, value, unit, limit)
    return { name = name, unit = unit, median = { node = value }, values = {}, limit = limit }
  end
  return {
    row("start until ready", median(times), "ms", 15),
    row("idle host, resident", host, "MiB", 12),
    row("idle worker, shared pages divided", own, "MiB", 3),
    row("idle worker, resident", resident, "MiB"),
  }
end

-- ------------------------------------------------------------------------------------------------
-- Output
-- ------------------------------------------------------------------------------------------------

local function number(n)
  if not n then return "-" end
  if n >= 1e6 then return ("%.2f M"):format(n / 1e6) end
  if n >= 1e4 then return ("%.0f k"):format(n / 1e3) end
  if n >= 1000 then return ("%.2f k"):format(n / 1e3) end
  return ("%.1f"):format(n)
end

local function print_table(list)
  local format = "%-36s %-8s %9s %9s %9s %9s  %-16s %s"
  print(format:format("", "", "mpreg", "Redis", "Tarant.", "bare", "bar", ""))
  local under = {}
  for _, row in ipairs(list) do
    local m = row.median
    local is_met, bar = judge(row)
    local verdict = is_met == nil and "" or is_met and "met" or "UNDER"
    if is_met == false then under[#under + 1] = row end
    local ratio = m.redis and (" (%.2f x Redis)"):format(
      row.key == "p50_us" and m.redis / m.node or m.node / m.redis) or ""
    print(format:format(row.name, row.unit, number(m.node), number(m.redis), number(m.tarantool),
      number(m.echo or m.luajit), bar, verdict .. ratio))
  end
  print(("\n%d of %d under their bar%s"):format(#under, #list, #under == 0 and "" or ":"))
  for _, row in ipairs(under) do print("  " .. row.name) end
  print "bare: for echo a C server without any function; for fib two LuaJIT processes"
end

local function json_row(row, is_met, bar)
  local medians = {}
  for name, value in pairs(row.median or { node = row.value }) do
    medians[#medians + 1] = ('"%s":%.3f'):format(name, value)
  end
  table.sort(medians)
  return ('{"name":"%s","unit":"%s",%s,"bar":"%s","beside":"%s","met":%s}'):format(row.name,
    row.unit, table.concat(medians, ","), bar or "", row.beside or "", tostring(is_met))
end

local function print_json(list, many, deploys)
  local out = {}
  for _, row in ipairs(list) do out[#out + 1] = json_row(row, judge(row)) end
  for _, row in ipairs(many) do out[#out + 1] = json_row(row, row.is_met, row.bar) end
  for _, row in ipairs(deploys) do out[#out + 1] = json_row(row, row.is_met, row.bar) end
  print(('{"rows":[%s]}'):format(table.concat(out, ",")))
end

-- One node, beside its peers.
local function measure_alone()
  local list = {}
  for _, row in ipairs(rows()) do
    if not ONLY or row.name:find(ONLY) then list[#list + 1] = row end
  end
  if #list > 0 then start_servers() end
  for repetition = 1, REPETITIONS do
    for _, row in ipairs(list) do
      say("%d/%d %s", repetition, REPETITIONS, row.name)
      measure_row(row, SECONDS)
    end
  end
  for _, row in ipairs(list) do
    row.median = {}
    for name, values in pairs(row.values) do row.median[name] = median(values) end
  end
  if not ONLY or ("idle start"):find(ONLY) then
    for _, row in ipairs(idle_rows()) do list[#list + 1] = row end
  end
  for _, server in pairs(servers) do measure.stop(server.pid) end
  return list
end

local function main()
  local list = measure_alone()
  local many = cluster.rows { seconds = SECONDS, is_quick = QUICK, only = ONLY }
  local deploys = deploy.rows { is_quick = QUICK, only = ONLY }
  if JSON then
    print_json(list, many, deploys)
    return
  end
  if #list > 0 then print_table(list) end
  if #many > 0 then measure.print("many nodes", many) end
  if #deploys > 0 then measure.print("deploys to three nodes", deploys) end
end

local ok, problem = xpcall(main, function(e)
  return type(e) == "string" and e or debug.traceback(tostring(e))
end)
if not ok then
  say("bench: %s", problem)
  os.exit(1)
end
