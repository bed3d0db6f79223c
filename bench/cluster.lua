--- The rows about many nodes. Each is measured beside what it is compared with, in turn, three
--- times over, and the medians count. A row: name, value, unit, beside and bar (texts), is_met.
---
--- What changes in the cluster is seen by asking each node over a connection that stays open, never
--- by starting a command for each question. Nodes are crashed with SIGKILL.

local ffi = require "ffi"

local client = require "mpreg.client"
local measure = require "bench.measure"

local M = {}

local REPETITIONS = 3
local MIB = 1048576
local POLL_S = 0.001

ffi.cdef [[
  int fork(void);
  int kill(int, int);
  int waitpid(int, int *, int);
  void _exit(int);
]]

-- ------------------------------------------------------------------------------------------------
-- Nodes
-- ------------------------------------------------------------------------------------------------

--- bench/cluster/place.lua under a name of its own, so that one node only has it; `factor` times
--- slower where it computes.
local function place(name, factor, folder)
  local path = measure.folder .. "/" .. (folder or name)
  os.execute("mkdir -p " .. path)
  local text = measure.read_file "bench/cluster/place.lua"
  measure.write_file(path .. "/" .. name .. ".lua",
    (text:gsub("FACTOR = 1", "FACTOR = " .. (factor or 1))))
  return "--load " .. path
end

local function connect(node)
  local c, err = client.connect { nodes = { node.addr }, timeout = 20 }
  if not c then error(("no connection to %s: %s"):format(node.addr, tostring(err)), 0) end
  return c
end

local function must(what, value, err)
  if err ~= nil then error(("%s: %s"):format(what, tostring(err)), 0) end
  return value
end

--- Waits until a function is known to whoever `c` is connected to.
local function await(c, fun, ...)
  must(fun, c:with({ wait = true, timeout = 20 }):call(fun, ...))
end

local function end_nodes(nodes)
  for _, node in ipairs(nodes) do measure.stop(node.pid, "KILL") end
end

--- mpreg bench, at the first of the nodes.
local function bench(node, what, outstanding, seconds, flags)
  return measure.load(("%s%s/mpreg bench %s -c %d -d %dms -n %s -o json"):format(flags or "",
    measure.build, what, outstanding, seconds * 1000, node.addr))
end

-- ------------------------------------------------------------------------------------------------
-- Calls and runs over three nodes
-- ------------------------------------------------------------------------------------------------

local function chain(name, places)
  local steps = {}
  for i = 1, 10 do
    steps[i] = ('{"name":"s%d","call":"%s.echo","args":[%s]}'):format(i,
      places[(i - 1) % #places + 1], i == 1 and "1" or ('{"$ref":"s%d"}'):format(i - 1))
  end
  return "run " .. measure.graph(name, steps, '{"$ref":"s10"}')
end

local function large(name, maker, user)
  return "run " .. measure.graph(name, {
    ('{"name":"made","call":"%s.make","args":[%d]}'):format(maker, MIB),
    ('{"name":"used","call":"%s.size","args":[{"$ref":"made"}]}'):format(user),
  }, '{"$ref":"used"}')
end

local function gather(list, key, value)
  list[key] = list[key] or {}
  table.insert(list[key], value)
end

local function call_rows(rows, m)
  local above, alone = m.far - m.near, m.far_one - m.near_one
  rows[#rows + 1] = { name = "call to a function of another node, p50 above a local one",
    value = above, unit = "µs", is_met = above <= 1.2 * m.echo, bar = "≤ 1.2 × the raw echo",
    beside = ("%.1f − %.1f; raw echo %.1f: × %.2f"):format(m.far, m.near, m.echo, above / m.echo) }
  rows[#rows + 1] = { name = "the same, all on one core", value = alone, unit = "µs",
    is_met = alone <= 25, bar = "≤ 25",
    beside = ("%.1f − %.1f; raw echo %.1f"):format(m.far_one, m.near_one, m.echo_one) }
  rows[#rows + 1] = { name = "64 calls outstanding, another node's function",
    value = m.far_64 / 1000, unit = "k/s", beside = ("local %.0f k/s"):format(m.near_64 / 1000) }
  rows[#rows + 1] = { name = "ten dependent steps over three nodes, p50", value = m.chain / 1000,
    unit = "ms", is_met = m.chain <= 1000, bar = "≤ 1.0",
    beside = ("all on one node %.2f ms"):format(m.chain_near / 1000) }
  rows[#rows + 1] = { name = "1 MiB made on one node, used on another, asked by a third, p50",
    value = m.large / 1000, unit = "ms",
    beside = ("all on one node %.2f ms"):format(m.large_near / 1000) }
end

local function measure_calls(rows, seconds)
  local nodes = {}
  local join = ""
  for i, name in ipairs { "one", "two", "three" } do
    nodes[i] = measure.start_node(("--workers 1 --cluster calls --name %s %s %s"):format(name,
      join, place(name)))
    join = "--join " .. nodes[1].addr
  end
  local echo_pid, echo_port = measure.start_echo "cluster-echo"
  local pids = { echo_pid }
  for i, node in ipairs(nodes) do pids[i + 1] = node.pid end
  local c = connect(nodes[1])
  for _, name in ipairs { "two", "three" } do await(c, name .. ".echo", 1) end
  c:close()
  local values = {}
  local argument = " @" .. measure.text_file(32)
  local kinds = {
    { "near", "call one.echo" .. argument }, { "far", "call two.echo" .. argument },
    { "near_64", "call one.echo" .. argument, 64 }, { "far_64", "call two.echo" .. argument, 64 },
    { "chain", chain("chain", { "two", "three", "one" }) },
    { "chain_near", chain("chain_near", { "one" }) },
    { "large", large("large", "two", "three") },
    { "large_near", large("large_near", "one", "one") },
  }
  local function echo(flags)
    return measure.load(("%s%s/bench/bench-peer echo %d -c 1 -k 1 -d %g -s 32"):format(flags,
      measure.build, echo_port, seconds)).p50_us
  end
  for repetition = 1, REPETITIONS do
    measure.say("%d/%d calls and runs over three nodes", repetition, REPETITIONS)
    for _, kind in ipairs(kinds) do
      local figures = bench(nodes[1], kind[2], kind[3] or 1, seconds)
      gather(values, kind[1], kind[3] and figures.calls_per_s or figures.p50_us)
      if kind[1] == "near" then gather(values, "echo", echo "") end
    end
    measure.pin("0", pids)
    for i = 1, 2 do
      local figures = bench(nodes[1], kinds[i][2], 1, seconds, "taskset -c 0 ")
      gather(values, kinds[i][1] .. "_one", figures.p50_us)
    end
    gather(values, "echo_one", echo "taskset -c 0 ")
    measure.pin(measure.all_cores(), pids)
  end
  end_nodes(nodes)
  measure.stop(echo_pid)
  local medians = {}
  for key, list in pairs(values) do medians[key] = measure.median(list) end
  call_rows(rows, medians)
end

-- ------------------------------------------------------------------------------------------------
-- Crash of the node that serves
-- ------------------------------------------------------------------------------------------------

--- After so long a process of its own kills `pid`, having noted the time in a file.
local function kill_later(pid, seconds)
  local path = measure.folder .. "/killed"
  local child = ffi.C.fork()
  if child == 0 then
    measure.sleep(seconds)
    measure.write_file(path, ("%.6f"):format(measure.now()))
    ffi.C.kill(pid, 9)
    ffi.C._exit(0)
  end
  return function()
    ffi.C.waitpid(child, nil, 0)
    return tonumber(measure.read_file(path))
  end
end

local function measure_crash(rows, times)
  local caller = measure.start_node "--workers 1 --cluster crash --name caller"
  local c = connect(caller)
  local heard = {}
  for i = 1, times do
    local name = "victim" .. i
    local victim = measure.start_node(("--workers 1 --cluster crash --name %s --join %s %s"):format(
      name, caller.addr, place(name)))
    await(c, name .. ".echo", 1)
    local killed_at = kill_later(victim.pid, 0.1)
    local _, err = c:call(name .. ".wait", 20)
    local heard_at = measure.now()
    heard[i] = (heard_at - killed_at()) * 1000
    if not err or err.reason ~= "NODE_LOST" then
      error("a crash was told as " .. tostring(err), 0)
    end
    measure.stop(victim.pid, "KILL")
  end
  c:close()
  end_nodes { caller }
  local worst = math.max(unpack(heard))
  rows[#rows + 1] = { name = "crash of the node that serves until the caller hears", unit = "ms",
    value = measure.median(heard), is_met = worst <= 50, bar = "≤ 50",
    beside = ("the longest of %d: %.1f ms"):format(times, worst) }
end

-- ------------------------------------------------------------------------------------------------
-- Joining, and the death of one
-- ------------------------------------------------------------------------------------------------

--- When a file was written last, on the clock of now().
local function written_at(path)
  local at = tonumber(measure.capture("stat -c %.9Y " .. path))
  return at - (measure.wall_clock() - measure.now())
end

--- Starts `count` nodes at once; gives them when the last one serves, and that moment.
local function start_group(count, cluster, seed)
  local name = cluster .. ".group"
  local path = ("%s/%s.out"):format(measure.folder, name)
  for i = 1, count do
    measure.start(name, ("%s/mpreg node --listen 127.0.0.1:0 --workers 1 --cluster %s --name n%d "
      .. "--join %s"):format(measure.build, cluster, i, seed.addr))
  end
  local nodes = {}
  measure.wait_until("nodes", function()
    local at = 0
    for line in (measure.read_file(path) or ""):gmatch "(.-)\n" do
      at = at + 1
      nodes[at] = nodes[at]
        or { pid = tonumber(line:match '"pid":(%d+)'), addr = line:match '"addr":"([^"]*)"' }
    end
    return at == count
  end, POLL_S)
  return nodes, written_at(path)
end

--- Asks all until each has said yes; gives the moment of the last yes.
local function await_all(what, clients, is_seen)
  local open = {}
  for i, c in ipairs(clients) do open[i] = c end
  measure.wait_until(what, function()
    for i = #open, 1, -1 do
      local status = must("status", open[i]:query "status")
      if is_seen(status.members) then table.remove(open, i) end
    end
    return #open == 0
  end, POLL_S)
  return measure.now()
end

--- { join =, start =, crash = } in seconds.
local function measure_group(count, serial)
  local name = ("group%d-%d"):format(count, serial)
  local began = measure.now()
  local seed = measure.start_node(("--workers 1 --cluster %s --name seed"):format(name))
  local nodes, ready_at = start_group(count - 1, name, seed)
  local clients = { connect(seed) }
  for _, node in ipairs(nodes) do clients[#clients + 1] = connect(node) end
  local joined_at = await_all("all nodes at all nodes", clients, function(members)
    return members.alive == count
  end)
  local victim = table.remove(nodes)
  table.remove(clients):close()
  local crashed_at = measure.now()
  measure.stop(victim.pid, "KILL")
  local dead_at = await_all("a death at all nodes", clients, function(members)
    return members.dead == 1 and members.alive == count - 1
  end)
  for _, c in ipairs(clients) do c:close() end
  nodes[#nodes + 1] = seed
  end_nodes(nodes)
  return { start = ready_at - began, join = joined_at - ready_at, crash = dead_at - crashed_at }
end

local function measure_groups(rows, is_quick)
  local crashes = {}
  for _, size in ipairs { { 5, 0.2 }, { 20, 0.4 }, { 40, 0.8 } } do
    local count, limit = unpack(size)
    local values = {}
    for repetition = 1, is_quick and 1 or REPETITIONS do
      measure.say("%d/%d a cluster of %d", repetition, REPETITIONS, count)
      for key, value in pairs(measure_group(count, repetition)) do gather(values, key, value) end
    end
    local join, crash = measure.median(values.join), measure.median(values.crash)
    rows[#rows + 1] = { name = ("%d nodes: last one ready until all see all"):format(count),
      value = join, unit = "s", is_met = join <= limit, bar = ("≤ %.1f"):format(limit),
      beside = ("starting all their processes %.2f s"):format(measure.median(values.start)) }
    crashes[#crashes + 1] = { name = ("%d nodes: crash of one until all others see it")
      :format(count), value = crash, unit = "s", is_met = crash <= 2.5, bar = "≤ 2.5" }
  end
  for _, row in ipairs(crashes) do rows[#rows + 1] = row end
end

-- ------------------------------------------------------------------------------------------------
-- Shares
-- ------------------------------------------------------------------------------------------------

--- How many calls of each of two providers, the second `factor` times slower.
local function share(factor, what, rate, seconds)
  local cluster = "shares" .. factor
  local gate = measure.start_node(("--workers 1 --cluster %s --name gate"):format(cluster))
  local nodes = { gate }
  for i = 1, 2 do
    nodes[i + 1] = measure.start_node(("--workers 1 --cluster %s --name p%d --join %s %s"):format(
      cluster, i, gate.addr, place("pair", i == 2 and factor or 1, cluster .. i)))
  end
  local counters = { connect(nodes[2]), connect(nodes[3]) }
  local c = connect(gate)
  measure.wait_until("both providers", function()
    local count = 0
    for _, fun in ipairs(must("functions", c:query "functions").functions) do
      if fun.name == "pair.echo" then count = count + #fun.nodes end
    end
    return count == 2
  end)
  local before = {}
  for i = 1, 2 do before[i] = must("status", counters[i]:query "status").calls end
  measure.load(("%s/mpreg bench call %s -c 64 --rate %d -d %dms -n %s -o json"):format(
    measure.build, what, rate, seconds * 1000, gate.addr))
  local counts = {}
  for i = 1, 2 do
    counts[i] = must("status", counters[i]:query "status").calls - before[i]
    counters[i]:close()
  end
  c:close()
  end_nodes(nodes)
  return counts
end

local function measure_shares(rows)
  local equal = share(1, "pair.echo 1", 5000, 2)
  local all = equal[1] + equal[2]
  local lesser = 100 * math.min(equal[1], equal[2]) / all
  rows[#rows + 1] = { name = "two equal idle providers: the lesser share", value = lesser,
    unit = "%", is_met = lesser >= 40, bar = "≥ 40",
    beside = ("%d : %d calls, 5,000 a second"):format(equal[1], equal[2]) }
  local unequal = share(10, "pair.work 0.0002", 2500, 4)
  all = unequal[1] + unequal[2]
  local slow = 100 * unequal[2] / all
  rows[#rows + 1] = { name = "one of them ten times slower: its share", value = slow, unit = "%",
    is_met = slow <= 20, bar = "≤ 20",
    beside = ("%d : %d calls of 0.2 and 2 ms, 2,500 a second"):format(unequal[1], unequal[2]) }
end

-- ------------------------------------------------------------------------------------------------
-- Idle
-- ------------------------------------------------------------------------------------------------

--- Seconds of processor time that a process has used, all its threads.
local function cpu_s(pid)
  local sum = 0
  for ns in measure.capture(("cat /proc/%d/task/*/schedstat"):format(pid)):gmatch "(%d+) %d+ %d+" do
    sum = sum + tonumber(ns) / 1e9
  end
  return sum
end

--- Thousandths of a core that the hosts use on average, and their resident memory.
local function idle(count, seconds)
  local seed
  local nodes = {}
  for i = 1, count do
    nodes[i] = measure.start_node(("--workers 1 --cluster idle%d --name i%d %s"):format(count, i,
      seed and "--join " .. seed.addr or ""))
    seed = seed or nodes[i]
  end
  measure.sleep(1)
  local before, used, resident = {}, 0, 0
  for i, node in ipairs(nodes) do before[i] = cpu_s(node.pid) end
  measure.sleep(seconds)
  for i, node in ipairs(nodes) do
    used = used + cpu_s(node.pid) - before[i]
    resident = resident + measure.memory_mib(node.pid, "Rss")
  end
  end_nodes(nodes)
  return used / seconds / count * 1000, resident / count
end

local function measure_idle(rows, seconds)
  local alone_cpu, alone_mib = idle(1, seconds)
  local cpu, mib = idle(5, seconds)
  rows[#rows + 1] = { name = "idle host in a cluster of 5: processor", value = cpu,
    unit = "‰ of a core", beside = ("a lone one %.2f ‰"):format(alone_cpu) }
  rows[#rows + 1] = { name = "idle host in a cluster of 5: resident", value = mib, unit = "MiB",
    is_met = mib <= 12, bar = "≤ 12", beside = ("a lone one %.1f MiB"):format(alone_mib) }
end

-- ------------------------------------------------------------------------------------------------

local PARTS = {
  { "cluster calls", function(rows, opts) measure_calls(rows, opts.seconds) end },
  { "cluster crash", function(rows, opts) measure_crash(rows, opts.is_quick and 3 or 7) end },
  { "cluster groups", function(rows, opts) measure_groups(rows, opts.is_quick) end },
  { "cluster shares", function(rows) measure_shares(rows) end },
  { "cluster idle", function(rows, opts) measure_idle(rows, opts.is_quick and 2 or 5) end },
}

--- The rows of all parts whose name matches.
---@param opts table  seconds a measurement, is_quick, only: a pattern or nil
---@return table[]
function M.rows(opts)
  local rows = {}
  for _, part in ipairs(PARTS) do
    if not opts.only or part[1]:find(opts.only) then
      measure.say("%s", part[1])
      part[2](rows, opts)
    end
  end
  return rows
end

return M
