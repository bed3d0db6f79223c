--- Real processes for functional specs: nodes and commands, with deadlines, leaving nothing behind.
---
---     local node = require "spec.support.node"
---
---     local n = node.start { "--load", "examples/hello" }
---     local r = n:mpreg { "call", "hello.greet", "you", "-o", "json" }    -- r.code, r.out, r.err
---     n:stop()                                                           -- asserts a clean end
---
--- The executable is $MPREG_BIN, else $MPREG_BUILD/mpreg, else build/mpreg. Each spec file calls
--- `node.stop_all` in `after_each`, so that a failed expectation leaves no process either.

local codec = require "mpreg.codec"
local uv = require "luv"

local M = {}

-- Generous: a sanitizer build on a busy machine is slow; nobody waits for these when all is well.
local START_S = 30
local STOP_S = 30
local RUN_S = 60

local ROOT = uv.cwd()
local serial = 0
local running = {}

local Process = {}
Process.__index = Process

--- The executable under test.
---@return string
function M.bin()
  local bin = os.getenv "MPREG_BIN"
  if not bin then bin = (os.getenv "MPREG_BUILD" or "build") .. "/mpreg" end
  return bin:sub(1, 1) == "/" and bin or ROOT .. "/" .. bin
end

--- Waits, serving processes meanwhile, until `condition` gives something true, and gives that.
--- Raises after `seconds` (default 10).
---@param condition fun(): any
---@param what? string  for the error
---@param seconds? number
---@return any
function M.eventually(condition, what, seconds)
  local deadline = uv.hrtime() + (seconds or 10) * 1e9
  local timer = uv.new_timer()
  timer:start(2, 2, function() end)
  local result = condition()
  while not result and uv.hrtime() < deadline do
    uv.run("once")
    result = condition()
  end
  timer:close()
  uv.run("nowait")
  if not result then
    error(("not within %g s: %s"):format(seconds or 10, what or "a condition"), 2)
  end
  return result
end

local function environment(extra)
  local vars = uv.os_environ()
  -- The surroundings of whoever runs the specs must not matter.
  vars.MPREG_NODE = nil
  vars.NO_COLOR = nil
  for name, value in pairs(extra or {}) do vars[name] = value or nil end
  local list = {}
  for name, value in pairs(vars) do list[#list + 1] = name .. "=" .. value end
  return list
end

local function read_into(process, key, pipe)
  process.open = process.open + 1
  pipe:read_start(function(_, data)
    if data then
      process[key][#process[key] + 1] = data
      return
    end
    pipe:close()
    process.open = process.open - 1
  end)
end

--- Starts a program. `opts`: stdin (a text; else it is empty, or left open with stdin = true), env
--- (false unsets), cwd, closed_stdout, through (the words of a command that runs it).
---@param program string
---@param args string[]
---@param opts? table
---@return table process
function M.spawn(program, args, opts)
  opts = opts or {}
  serial = serial + 1
  local mark = ("%d-%d"):format(uv.os_getpid(), serial)
  local env = { MPREG_SPEC_PROCESS = mark }
  for name, value in pairs(opts.env or {}) do env[name] = value end
  local stdin, stdout, stderr = uv.new_pipe(false), uv.new_pipe(false), uv.new_pipe(false)
  local self = setmetatable({
    out_parts = {}, err_parts = {}, open = 0, mark = mark, started = uv.hrtime(),
    command = program:match("[^/]*$") .. " " .. table.concat(args, " "):sub(1, 300),
  }, Process)
  local words = {}
  for _, word in ipairs(opts.through or {}) do words[#words + 1] = word end
  if opts.through then words[#words + 1] = program end
  for i = 1, #args do words[#words + 1] = tostring(args[i]) end
  if opts.through then program = table.remove(words, 1) end
  local handle, pid = uv.spawn(program, {
    args = words, env = environment(env), cwd = opts.cwd or ROOT, stdio = { stdin, stdout, stderr },
  }, function(code, signal)
    self.code, self.signal, self.ended = code, signal, uv.hrtime()
    self.handle:close()
  end)
  if not handle then
    for _, pipe in ipairs { stdin, stdout, stderr } do pipe:close() end
    uv.run("nowait")
    error(("cannot start %s: %s"):format(program, pid), 2)
  end
  self.handle, self.pid, self.stdin = handle, pid, stdin
  running[self] = true
  if opts.closed_stdout then
    stdout:close()
  else
    read_into(self, "out_parts", stdout)
  end
  read_into(self, "err_parts", stderr)
  if type(opts.stdin) == "string" then
    stdin:write(opts.stdin, function() self:close_stdin() end)
  elseif not opts.stdin then
    self:close_stdin()
  end
  return self
end

function Process:close_stdin()
  if self.stdin and not self.stdin:is_closing() then self.stdin:close() end
end

function Process:write(text) self.stdin:write(text) end

--- What it has written so far.
function Process:out()
  if #self.out_parts > 1 then self.out_parts = { table.concat(self.out_parts) } end
  return self.out_parts[1] or ""
end

function Process:err()
  if #self.err_parts > 1 then self.err_parts = { table.concat(self.err_parts) } end
  return self.err_parts[1] or ""
end

--- Sends a signal (default SIGTERM); false if it has ended.
function Process:kill(signal)
  if self.code then return false end
  return uv.kill(self.pid, signal or "sigterm") == 0
end

--- Waits until it has ended and all that it wrote is read.
---@return table result  { code, signal, out, err, ms }
function Process:wait(seconds)
  M.eventually(function() return self.code and self.open == 0 end,
    ("the end of %s\nstdout: %s\nstderr: %s"):format(self.command, self:out():sub(-2000),
      self:err():sub(-2000)), seconds or RUN_S)
  self:close_stdin()
  uv.run("nowait")
  running[self] = nil
  return {
    code = self.code, signal = self.signal, out = self:out(), err = self:err(),
    ms = (self.ended - self.started) / 1e6,
  }
end

--- Waits until what it wrote to `stream` ("out" or "err") contains the pattern; gives the captures.
function Process:wait_for(stream, pattern, seconds)
  local found
  M.eventually(function()
    found = { self[stream](self):match(pattern) }
    return found[1] ~= nil or (self.code and self.open == 0)
  end, ("'%s' from %s; it wrote: %s %s"):format(pattern, self.command, self:out():sub(-1000),
    self:err():sub(-1000)), seconds or START_S)
  if found[1] == nil then
    error(("%s ended (code %s, signal %s) without '%s'\nstdout: %s\nstderr: %s"):format(
      self.command, self.code, self.signal, pattern, self:out(), self:err()), 2)
  end
  return unpack(found)
end

--- Ids of the living processes that descend from it, also when it is gone itself.
function Process:descendants()
  local pids = {}
  local scan = uv.fs_scandir("/proc")
  local needle = "MPREG_SPEC_PROCESS=" .. self.mark .. "\0"
  while true do
    local name = uv.fs_scandir_next(scan)
    if not name then break end
    if name:find("^%d+$") and tonumber(name) ~= self.pid then
      local file = io.open("/proc/" .. name .. "/environ", "rb")
      local text = file and file:read("*a")
      if file then file:close() end
      if text and (text .. "\0"):find(needle, 1, true) then pids[#pids + 1] = tonumber(name) end
    end
  end
  table.sort(pids)
  return pids
end

--- Ends it and its descendants, whatever they do.
function Process:destroy()
  for _, pid in ipairs(self:descendants()) do uv.kill(pid, "sigkill") end
  self:kill("sigkill")
  pcall(self.wait, self, 10)
  running[self] = nil
end

--- Runs a program to its end. `opts` as for spawn, and timeout (seconds).
---@return table result  { code, signal, out, err, ms }
function M.run(program, args, opts)
  local process = M.spawn(program, args, opts)
  local ok, result = pcall(process.wait, process, opts and opts.timeout)
  if not ok then
    process:destroy()
    error(result, 2)
  end
  return result
end

--- Runs `mpreg args…` to its end.
function M.mpreg(args, opts) return M.run(M.bin(), args, opts) end

--- Runs `mpreg args…` on a terminal of its own; stdout and stderr come together as `out`.
function M.mpreg_on_terminal(args, opts)
  local words = { "exec '" .. M.bin():gsub("'", "'\\''") .. "'" }
  for i = 1, #args do words[#words + 1] = "'" .. tostring(args[i]):gsub("'", "'\\''") .. "'" end
  local command = "stty cols 100 rows 30; " .. table.concat(words, " ")
  return M.run("script", { "-qefc", command, "/dev/null" }, opts)
end

-- ------------------------------------------------------------------------------------------------
-- Nodes
-- ------------------------------------------------------------------------------------------------

local Node = setmetatable({}, { __index = Process })
Node.__index = Node

local function has(args, flag)
  for i = 1, #args do
    if args[i] == flag or tostring(args[i]):sub(1, #flag + 1) == flag .. "=" then return true end
  end
  return false
end

--- Starts a node on a free port and does not wait; `await` does.
---@param flags? string[]  of `mpreg node`
---@param opts? table  as for spawn
---@return table node
function M.launch(flags, opts)
  local args = { "node" }
  flags = flags or {}
  if not has(flags, "--listen") and not has(flags, "--config") then
    args[#args + 1] = "--listen"
    args[#args + 1] = "127.0.0.1:0"
  end
  for i = 1, #flags do args[#args + 1] = flags[i] end
  local self = setmetatable(M.spawn(M.bin(), args, opts), Node)
  self.through = opts and opts.through
  return self
end

--- Waits until it serves: fields `ready` (the line's text), `name`, `cluster`, `addr`, `port`,
--- `pid`.
---@return table self
function Node:await()
  local ok, line = pcall(self.wait_for, self, "out", "^([^\n]*)\n")
  if not ok then
    self:destroy()
    error(line, 2)
  end
  self.ready = line
  self.name = line:match('"name":"([^"]*)"') or line:match('"node":"([^"]*)"')
  self.cluster = line:match('"cluster":"([^"]*)"')
  self.addr = line:match('"addr":"([^"]*)"')
  self.port = self.addr and tonumber(self.addr:match(":(%d+)$"))
  return self
end

--- Starts a node on a free port and waits until it serves.
---@param flags? string[]  of `mpreg node`
---@param opts? table  as for spawn
---@return table node
function M.start(flags, opts) return M.launch(flags, opts):await() end

--- Options of a command against this node: its address, and wherever the node itself runs.
local function toward(self, opts)
  opts = opts or {}
  local env = { MPREG_NODE = self.addr }
  for name, value in pairs(opts.env or {}) do env[name] = value end
  return setmetatable({ env = env, through = self.through }, { __index = opts })
end

--- Runs `mpreg args…` against this node.
function Node:mpreg(args, opts) return M.mpreg(args, toward(self, opts)) end

--- Starts `mpreg args…` against this node without waiting.
function Node:spawn(args, opts) return M.spawn(M.bin(), args, toward(self, opts)) end

--- The members that it lists: name -> row of `mpreg nodes`; empty while it does not answer.
function Node:members()
  local list = {}
  local r = self:mpreg { "nodes", "-o", "json" }
  if r.code ~= 0 then return list end
  for _, row in ipairs(assert(codec.json_decode(r.out)).nodes) do list[row.name] = row end
  return list
end

--- Ids of its worker processes.
function Node:workers() return self:descendants() end

--- SIGTERM, once: a second one would end it at once.
function Node:tell_to_stop()
  if not self.is_told then self:kill("sigterm") end
  self.is_told = true
end

--- SIGTERM; asserts that it exits 0 and that none of its processes is left.
---@return table result
function Node:stop()
  self:tell_to_stop()
  local result = self:wait(STOP_S)
  if result.code ~= 0 or result.signal ~= 0 then
    error(("the node ended with code %s, signal %s\nstderr: %s"):format(result.code, result.signal,
      result.err:sub(-4000)), 2)
  end
  M.eventually(function() return #self:descendants() == 0 end, "the end of the node's processes", 5)
  return result
end

--- How many marks functions have left in a file: lines; 0 if it is not there.
---@param path string
---@return integer
function M.marks(path)
  local file = io.open(path)
  local count = 0
  if file then
    for _ in file:lines() do count = count + 1 end
    file:close()
  end
  return count
end

--- For `after_each`: ends all that still runs.
function M.stop_all()
  local list = {}
  for process in pairs(running) do list[#list + 1] = process end
  for _, process in ipairs(list) do process:destroy() end
end

return M
