--- What the files of the benchmarks share: processes that bench/run.sh ends whatever happens, time,
--- medians and rows.

local ffi = require "ffi"

local M = {
  build = "build", -- the folder with mpreg in it
  folder = ".", -- for files of this run; run.sh removes it
}

ffi.cdef [[
  typedef struct { long s, ns; } mp_bench_time;
  int clock_gettime(int, mp_bench_time *);
  int usleep(unsigned);
]]
local REALTIME, MONOTONIC = 0, 1
local time = ffi.new "mp_bench_time"

local function clock(which)
  ffi.C.clock_gettime(which, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end

--- Seconds since some moment; all processes of a machine agree on it.
function M.now()
  return clock(MONOTONIC)
end

--- Seconds since 1970.
function M.wall_clock()
  return clock(REALTIME)
end

function M.sleep(seconds)
  ffi.C.usleep(seconds * 1e6)
end

function M.say(...)
  io.stderr:write(string.format(...), "\n")
end

function M.read_file(path)
  local f = io.open(path, "rb")
  local text = f and f:read "*a"
  if f then f:close() end
  return text
end

function M.write_file(path, text)
  local f = assert(io.open(path, "wb"))
  f:write(text)
  f:close()
  return path
end

function M.capture(command)
  local pipe = assert(io.popen(command))
  local text = pipe:read "*a"
  pipe:close()
  return text
end

function M.has(program)
  return M.capture("command -v " .. program) ~= ""
end

--- Asks again and again (every 5 ms) until there is an answer; fails after half a minute.
function M.wait_until(what, condition, pause)
  local deadline = M.now() + 30
  while true do
    local result = condition()
    if result then return result end
    if M.now() > deadline then error("waited in vain for " .. what, 0) end
    M.sleep(pause or 0.005)
  end
end

-- ------------------------------------------------------------------------------------------------
-- Processes
-- ------------------------------------------------------------------------------------------------

local running = {} -- by pid; run.sh ends what stands in the file

local function note(pid, is_running)
  running[pid] = is_running or nil
  local lines = {}
  for each in pairs(running) do lines[#lines + 1] = each .. "\n" end
  M.write_file(M.folder .. "/pids", table.concat(lines))
end

--- Starts a program whose end run.sh sees to; gives its pid. What it prints goes to NAME.out and
--- NAME.err in the folder.
function M.start(name, command)
  local pid = tonumber(M.capture(("%s >>%s/%s.out 2>%s/%s.err </dev/null & echo $!"):format(command,
    M.folder, name, M.folder, name)))
  note(pid, true)
  return pid
end

--- Ends what `start` started.
function M.stop(pid, signal)
  os.execute(("kill -%s %d 2>/dev/null"):format(signal or "TERM", pid))
  note(pid, false)
end

function M.children(pid)
  local list = {}
  for child in M.capture(("cat /proc/%d/task/%d/children"):format(pid, pid)):gmatch "%d+" do
    list[#list + 1] = tonumber(child)
  end
  return list
end

--- Keeps processes, and their children, to the cores.
function M.pin(cores, pids)
  for _, parent in ipairs(pids) do
    local list = M.children(parent)
    list[#list + 1] = parent
    for _, pid in ipairs(list) do
      os.execute(("taskset -acp %s %d >/dev/null 2>&1"):format(cores, pid))
    end
  end
end

--- All cores, as `pin` wants them.
function M.all_cores()
  return "0-" .. tonumber(M.capture "nproc --all") - 1
end

--- Resident memory. Rss counts pages that processes share (libraries, the executable) in each of
--- them; Pss divides them between those that share them.
function M.memory_mib(pid, kind)
  local text = M.read_file("/proc/" .. pid .. "/smaps_rollup") or ""
  return (tonumber(text:match(kind .. ":%s*(%d+)")) or 0) / 1024
end

--- Starts bench-echo; its pid and the port that the system gave it.
function M.start_echo(name)
  local pid = M.start(name, M.build .. "/bench/bench-echo")
  return pid, M.wait_until("bench-echo", function()
    return tonumber((M.read_file(M.folder .. "/" .. name .. ".out") or ""):match "(%d+)\n")
  end)
end

local nodes = 0

--- Starts a node and waits until it serves: its pid, name and addr.
function M.start_node(flags)
  nodes = nodes + 1
  local out = "node" .. nodes
  local pid = M.start(out, ("%s/mpreg node --listen 127.0.0.1:0 %s"):format(M.build, flags or ""))
  local ready = M.wait_until("a node", function()
    return (M.read_file(M.folder .. "/" .. out .. ".out") or ""):match "(.-)\n"
  end)
  return { pid = pid, name = ready:match '"node":"([^"]*)"', addr = ready:match '"addr":"([^"]*)"' }
end

-- ------------------------------------------------------------------------------------------------
-- Figures
-- ------------------------------------------------------------------------------------------------

--- The figures of a load generator's JSON.
function M.load(command)
  local text = M.capture(command .. " 2>&1")
  local figures = {}
  for key, value in text:gmatch '"([%w_]+)":%s*([%d.eE+-]+)' do figures[key] = tonumber(value) end
  if not figures.calls_per_s then error(("%s gave no figures: %s"):format(command, text), 0) end
  if figures.errors ~= 0 then M.say("%s: %d errors: %s", command, figures.errors, text) end
  return figures
end

function M.median(list)
  table.sort(list)
  return list[math.ceil(#list / 2)]
end

--- Prints rows as docs/performance.md shows them.
---@param title string
---@param rows table[]  name, value, unit, beside, bar, is_met
function M.print(title, rows)
  print(("\n| %s | | beside it, in the same run | bar |"):format(title))
  print "|---|---|---|---|"
  for _, row in ipairs(rows) do
    local precision = row.value >= 100 and 0 or row.value >= 10 and 1 or 2
    local bar = row.bar or ""
    if row.is_met == false then bar = bar .. ": **missed**" end
    print(("| %s | %." .. precision .. "f %s | %s | %s |"):format(row.name, row.value, row.unit,
      row.beside or "", bar))
  end
end

--- A graph in a file.
function M.graph(name, steps, output)
  return M.write_file(("%s/%s.json"):format(M.folder, name),
    ('{"name":"%s","steps":[%s],"output":%s}'):format(name, table.concat(steps, ","),
      output or '{"done":true}'))
end

--- A text of so many bytes in a file, as JSON.
function M.text_file(bytes)
  return M.write_file(("%s/text%d.json"):format(M.folder, bytes), '"' .. ("x"):rep(bytes) .. '"')
end

return M
