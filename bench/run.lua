-- The benchmarks; called by bench/run.sh: run.lua BUILD FOLDER [--quick] [--json] [--only REGEX]
--
-- All servers run side by side, idle but for the one that is measured. Rows are measured in blocks
-- that alternate between them, three times over, and the medians count: a machine that slows down
-- for a while slows all of them down. Peers are measured by bench-peer, a node by `mpreg bench`;
-- both are the same load generator.
--
-- A bar is a ratio to a peer measured in the same run where that peer is installed, else a number
-- of calls a second.

local ffi = require "ffi"

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

ffi.cdef [[
  typedef struct { long s, ns; } mp_bench_time;
  int clock_gettime(int, mp_bench_time *);
  int usleep(unsigned);
]]
local time = ffi.new "mp_bench_time"
local function now()
  ffi.C.clock_gettime(1, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end

local function say(...)
  io.stderr:write(string.format(...), "\n")
end

local function read_file(path)
  local f = io.open(path, "rb")
  local text = f and f:read "*a"
  if f then f:close() end
  return text
end

local function write_file(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  return path
end

local function capture(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

local function has(program)
  return capture("command -v " .. program) ~= ""
end

local function wait_until(what, condition)
  local deadline = now() + 30
  while true do
    local result = condition()
    if result then return result end
    if now() > deadline then error("waited in vain for " .. what, 0) end
    ffi.C.usleep(5000)
  end
end

-- ------------------------------------------------------------------------------------------------
-- Servers
-- ------------------------------------------------------------------------------------------------

-- Starts a program whose end run.sh sees to; gives its pid.
local function start(name, command)
  local pid = tonumber(capture(("%s >%s/%s.out 2>%s/%s.err </dev/null & echo $!"):format(command,
    FOLDER, name, FOLDER, name)))
  local f = assert(io.open(FOLDER .. "/pids", "a"))
  f:write(pid, "\n")
  f:close()
  return pid
end

-- Starts bench-echo; its pid and the port that the system gave it.
local function start_echo(name)
  local pid = start(name, BUILD .. "/bench/bench-echo")
  return pid, wait_until("bench-echo", function()
    return tonumber((read_file(FOLDER .. "/" .. name .. ".out") or ""):match "(%d+)\n")
  end)
end

-- A port that was free a moment ago.
local function free_port()
  local pid, port = start_echo "port"
  os.execute("kill " .. pid)
  return port
end

local servers = {} -- name → { pid =, port = | addr = }

local function start_node()
  local name = "node" .. tostring(os.clock()):gsub("%D", "")
  local pid = start(name, BUILD .. "/mpreg node --listen 127.0.0.1:0 --load bench/modules")
  local ready = wait_until("a node", function()
    return (read_file(FOLDER .. "/" .. name .. ".out") or ""):match "(.-)\n"
  end)
  return { pid = pid, addr = ready:match '"addr":"([^"]*)"' }
end

local function start_servers()
  servers.node = start_node()
  local pid, echo_port = start_echo "echo"
  servers.echo = { pid = pid, port = echo_port }
  if has "redis-server" then
    local port = free_port()
    servers.redis = { port = port, pid = start("redis",
      ("redis-server --port %d --bind 127.0.0.1 --save '' --appendonly no --dir %s"):format(port,
        FOLDER)) }
    wait_until("Redis", function()
      return (read_file(FOLDER .. "/redis.out") or ""):find "Ready to accept"
    end)
    if not (read_file(FOLDER .. "/redis.out")):find "version=[789]" then
      say("Redis is older than 7 and has no FCALL: left out")
      servers.redis = nil
    end
  end
  if has "tarantool" then
    local port = free_port()
    servers.tarantool = { port = port,
      pid = start("tarantool", ("tarantool bench/tarantool.lua %d %s"):format(port, FOLDER)) }
    wait_until("Tarantool", function()
      return (read_file(FOLDER .. "/tarantool.out") or ""):find "ready"
    end)
  end
end

local function children(pid)
  local list = {}
  for child in capture(("cat /proc/%d/task/%d/children"):format(pid, pid)):gmatch "%d+" do
    list[#list + 1] = tonumber(child)
  end
  return list
end

local function each_process(f)
  for _, server in pairs(servers) do
    f(server.pid)
    for _, child in ipairs(children(server.pid)) do f(child) end
  end
end

local function pin(cores)
  each_process(function(pid)
    os.execute(("taskset -acp %s %d >/dev/null 2>&1"):format(cores, pid))
  end)
end

-- ------------------------------------------------------------------------------------------------
-- Measuring
-- ------------------------------------------------------------------------------------------------

local function figures_of(text, what)
  local figures = {}
  for key, value in text:gmatch '"([%w_]+)":%s*([%d.eE+-]+)' do figures[key] = tonumber(value) end
  if not figures.calls_per_s then error(("%s gave no figures: %s"):format(what, text), 0) end
  if figures.errors ~= 0 then say("%s: %d errors: %s", what, figures.errors, text) end
  return figures
end

-- row: bytes or fib or graph, outstanding, connections, pinned.
local function measure(name, row, seconds)
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
  return figures_of(capture(command .. " 2>&1"), command)
end

-- Two bare LuaJIT processes (or as many as there are cores, if fewer).
local function measure_bare(seconds)
  local command = ("for i in 1 2; do luajit bench/fib.lua %g & done; wait"):format(seconds)
  local sum = 0
  for n in capture(command):gmatch "[%d.]+" do sum = sum + tonumber(n) end
  return { calls_per_s = sum }
end

local function median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

-- ------------------------------------------------------------------------------------------------
-- Rows
-- ------------------------------------------------------------------------------------------------

local function graph_of(steps, name)
  return write_file(("%s/%s.json"):format(FOLDER, name),
    ('{"name":"%s","steps":[%s]%s}'):format(name, table.concat(steps, ","),
      ',"output":{"done":true}'))
end

local function independent(count)
  local steps = {}
  for i = 1, count do
    steps[i] = ('{"name":"s%d","call":"bench.tiny","args":[%d]}'):format(i, i)
  end
  return graph_of(steps, "independent")
end

local function diamond(width)
  local steps, refs = { '{"name":"first","call":"bench.tiny","args":[1]}' }, {}
  for i = 1, width do
    steps[#steps + 1] = ('{"name":"m%d","call":"bench.tiny","args":[{"$ref":"first"}]}'):format(i)
    refs[i] = ('{"$ref":"m%d"}'):format(i)
  end
  steps[#steps + 1] = ('{"name":"last","call":"bench.count","args":[[%s]]}'):format(
    table.concat(refs, ","))
  return graph_of(steps, "diamond")
end

local function text_file(bytes)
  return write_file(("%s/text%d.json"):format(FOLDER, bytes), '"' .. ("x"):rep(bytes) .. '"')
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
    if row.bytes then row.argument = text_file(row.bytes) end
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
  note("node", measure("node", row, seconds))
  for _, peer in ipairs(row.peers) do
    if peer == "luajit" then
      note(peer, measure_bare(seconds))
    elseif servers[peer] then
      note(peer, measure(peer, row, seconds))
    end
  end
  if row.pinned then pin("0-" .. tonumber(capture "nproc --all") - 1) end
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

-- Rss counts pages that processes share (libraries, the executable) in each of them; Pss divides
-- them between those that share them.
local function memory_mib(pid, kind)
  local text = read_file("/proc/" .. pid .. "/smaps_rollup") or ""
  return (tonumber(text:match(kind .. ":%s*(%d+)")) or 0) / 1024
end

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
  local node = start_node()
  ffi.C.usleep(300000)
  local host, resident, own = memory_mib(node.pid, "Rss"), 0, 0
  for _, worker in ipairs(children(node.pid)) do
    resident = math.max(resident, memory_mib(worker, "Rss"))
    own = math.max(own, memory_mib(worker, "Pss"))
  end
  os.execute("kill " .. node.pid)
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

local function print_json(list)
  local out = {}
  for _, row in ipairs(list) do
    local is_met, bar = judge(row)
    local medians = {}
    for name, value in pairs(row.median) do
      medians[#medians + 1] = ('"%s":%.3f'):format(name, value)
    end
    table.sort(medians)
    out[#out + 1] = ('{"name":"%s","unit":"%s",%s,"bar":"%s","met":%s}'):format(row.name, row.unit,
      table.concat(medians, ","), bar, tostring(is_met))
  end
  print(('{"rows":[%s]}'):format(table.concat(out, ",")))
end

local function main()
  start_servers()
  local list = {}
  for _, row in ipairs(rows()) do
    if not ONLY or row.name:find(ONLY) then list[#list + 1] = row end
  end
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
  if JSON then print_json(list) else print_table(list) end
end

local ok, problem = xpcall(main, function(e)
  return type(e) == "string" and e or debug.traceback(tostring(e))
end)
if not ok then
  say("bench: %s", problem)
  os.exit(1)
end
