--- `mpreg dev`: a cluster in the foreground that serves a folder and follows each save.
---
--- The nodes are children of this process, in sessions of their own, so that Ctrl-C reaches this
--- one alone. Each ends when this process ends, however it does.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local native = require "mpreg.native"
local node_config = require "mpreg.cli.node_config"
local text = require "mpreg.render.text"

local M = {}

local SIGINT, SIGTERM, SIGKILL = 2, 15, 9
local PORT = 7400
local NODES_MAX = 16
local START_S = 30
local STOP_S = 5     -- more than the drain
local DRAIN = "1s"
local POLL_MS = 10   -- how often a node is asked whether it knows all
local HOW = { warn = "yellow", error = "red" }

M.command = {
  name = "dev",
  usage = "[DIR] [flags]",
  summary = "Start a cluster that serves a folder, and follows each save.",
  description = "Starts nodes n1, n2 … on loopback, deploys DIR to them, and deploys it again on "
    .. "each save. Prints where they listen, a line for each deploy, and what functions log, on "
    .. "stderr. The first node listens on port 7400 if that is free.\n\nCtrl-C stops the nodes "
    .. "and ends it with exit code 130.",
  examples = "  mpreg dev\n  mpreg dev examples/quakes --nodes 1 --resource "
    .. "'catalogue={\"path\":\"examples/quakes/data\"}'",
  arguments = { { "DIR", "The folder of modules (the current one).", count = "?" } },
  flags = {
    { "--nodes", "N", "How many nodes (3).", type = args.integer(1, NODES_MAX) },
    { "--workers", "N", "Worker processes of each node (1).", type = args.integer(1, 256) },
    { "--resource", "NAME[=JSON]", "What each node has; repeatable.", many = true },
    args.OUTPUT, args.HELP,
  },
}

-- ------------------------------------------------------------------------------------------------
-- Nodes
-- ------------------------------------------------------------------------------------------------

--- Starts a node; its `pid` is nil if that failed, and `problem` says why.
local function start(self, node, port)
  local words = {
    native.realpath("/proc/self/exe"), "node", "--name", node.name,
    "--listen", "127.0.0.1:" .. port, "--workers", tostring(self.options.workers or 1),
    "--drain", DRAIN, "--log-format", "json", "--parent", tostring(native.pid()),
  }
  for _, resource in ipairs(self.options.resource or {}) do
    words[#words + 1] = "--resource"
    words[#words + 1] = resource
  end
  if self.nodes[1].addr then
    words[#words + 1] = "--join"
    words[#words + 1] = self.nodes[1].addr
  end
  node.out, node.log, node.said, node.is_ended = "", "", nil, false
  node.pid, node.problem = self.jobs:start(words)
end

--- What a node logs that concerns whoever writes functions: what those log, and warnings.
---@param name string  the node's
---@param line string  of its log
---@param opts? { color?: boolean }
---@return string?
function M.log_line(name, line, opts)
  local paint = text.painter(opts and opts.color)
  local entry = codec.json_decode(line)
  local said = {}
  if type(entry) ~= "table" or type(entry.message) ~= "string" then
    said[1] = text.clean(line)
  else
    if entry.worker == nil and not HOW[entry.level] then return nil end
    local level = HOW[entry.level]
    if level then said[1] = paint(level, entry.level .. ":") end
    said[#said + 1] = text.clean(entry.message)
    if type(entry.fields) == "table" and next(entry.fields) then
      said[#said + 1] = codec.json_encode(entry.fields, { sort_keys = true })
    end
    if type(entry.fun) == "string" and entry.fun ~= "" then
      said[#said + 1] = paint("dim", ("(%s)"):format(text.clean(entry.fun)))
    end
  end
  return ("%s  %s"):format(paint("cyan", name), table.concat(said, " "))
end

local function node_of(self, pid)
  for _, node in ipairs(self.nodes) do
    if node.pid == pid then return node end
  end
end

--- Whole lines of what came, and the rest.
local function lines_of(rest, more, each)
  local all = rest .. more
  local at = 1
  for line, after in all:gmatch("([^\n]*)\n()") do
    each(line)
    at = after
  end
  return all:sub(at)
end

local function take_output(self, node, event)
  if not event.is_error then
    node.out = lines_of(node.out, event.text, function(line)
      local ready = codec.json_decode(line)
      if type(ready) == "table" and ready.event == "ready" then node.addr = ready.addr end
    end)
    return
  end
  node.log = lines_of(node.log, event.text, function(line)
    local told = M.log_line(node.name, line, { color = self.output.err_color })
    if not told then return end
    if node.addr then
      self.output:note(told)
    else
      node.said = told -- until it is known whether that matters
    end
  end)
end

--- Takes an event of the jobs. A signal is kept in `signal`.
local function take(self, event)
  if event.kind == "signal" then
    self.signal = event.number
    return
  end
  local node = event.pid and node_of(self, event.pid)
  if not node then
    if self.watch then self.watch:take(event) end
  elseif event.kind == "output" then
    take_output(self, node, event)
  else
    node.is_ended, node.pid = true, nil
    node.how = event.signal ~= 0 and ("signal %d"):format(event.signal)
      or ("exit code %d"):format(event.code)
    if node.addr and not self.is_stopping then
      self.output:note(("%s has ended (%s)"):format(node.name, node.how))
    end
  end
end

--- Takes events until a condition holds; false after so many seconds, or when there is a signal.
local function pump(self, seconds, condition)
  local deadline = native.now() + seconds
  while not condition() do
    local left = deadline - native.now()
    if left <= 0 or self.signal then return false end
    local event = self.jobs:wait(math.ceil(left * 1000))
    if event then take(self, event) end
  end
  return true
end

local function not_started(node)
  local why = node.problem or node.said
    or node.how and ("it ended with " .. node.how) or "it was not ready in time"
  return { code = "UNAVAILABLE", reason = "NOT_STARTED", attempt = 1,
    message = ("%s did not start: %s"):format(node.name, why) }
end

--- Starts all nodes, the others once the first is there.
local function start_all(self)
  local first = self.nodes[1]
  local function is_settled() return first.addr or first.is_ended end
  start(self, first, PORT)
  if first.pid then pump(self, START_S, is_settled) end
  if not first.addr and first.is_ended and not self.signal then
    -- Taken, most likely.
    start(self, first, 0)
    if first.pid then pump(self, START_S, is_settled) end
  end
  if not first.addr then return not_started(first) end
  for i = 2, #self.nodes do start(self, self.nodes[i], 0) end
  for i = 2, #self.nodes do
    local node = self.nodes[i]
    if node.pid then pump(self, START_S, function() return node.addr or node.is_ended end) end
    if not node.addr then return not_started(node) end
  end
end

local function connect(self)
  local addresses = {}
  for _, node in ipairs(self.nodes) do
    if node.pid then addresses[#addresses + 1] = node.addr end
  end
  return require "mpreg.cli.connection".open { node = addresses }
end

--- Waits until a node knows all others.
local function await_all(self, c, deadline)
  while not self.signal do
    local answer, err = c:query("nodes")
    if not answer then return err end
    local alive = 0
    for _, node in ipairs(answer.nodes) do alive = alive + (node.state == "alive" and 1 or 0) end
    if alive >= #self.nodes then return nil end
    if native.now() > deadline then
      return { code = "UNAVAILABLE", reason = "NOT_STARTED", attempt = 1,
        message = ("%d of %d nodes have found each other"):format(alive, #self.nodes) }
    end
    local event = self.jobs:wait(POLL_MS)
    if event then take(self, event) end
  end
end

--- Waits until all nodes know all others, so that the first deploy is one on all.
local function await_cluster(self)
  local deadline = native.now() + START_S
  for _, node in ipairs(self.nodes) do
    local c, err = require "mpreg.cli.connection".open { node = { node.addr } }
    if not c then return err end
    err = await_all(self, c, deadline)
    c:close()
    if err or self.signal then return err end
  end
end

--- Ends all nodes; a further signal ends them at once.
local function stop_all(self)
  self.is_stopping = true
  local function is_over()
    for _, node in ipairs(self.nodes) do
      if node.pid then return false end
    end
    return true
  end
  for _, number in ipairs { SIGTERM, SIGKILL } do
    self.signal = nil
    for _, node in ipairs(self.nodes) do
      if node.pid then self.jobs:signal(node.pid, number) end
    end
    if pump(self, STOP_S, is_over) then return end
  end
end

-- ------------------------------------------------------------------------------------------------
-- The command
-- ------------------------------------------------------------------------------------------------

local function greet(self, dir)
  local output = self.output
  if output.json then
    local nodes = codec.array {}
    for i, node in ipairs(self.nodes) do
      nodes[i] = { name = node.name, addr = node.addr, pid = node.pid }
    end
    local ready = { event = "ready", nodes = nodes }
    output:write(codec.json_encode(ready, { sort_keys = true }) .. "\n")
    return output:flush()
  end
  local paint = text.painter(output.color)
  for _, node in ipairs(self.nodes) do
    output:write(("%s  %s\n"):format(paint("bold", node.name), node.addr))
  end
  local first = self.nodes[1].addr
  if first ~= "127.0.0.1:" .. PORT then
    output:write(("port %d is taken: use -n %s, or export MPREG_NODE=%s\n"):format(PORT, first,
      first))
  end
  local shown = dir == "." and native.realpath(dir) or dir
  output:write(("%s is deployed on each save; Ctrl-C stops the nodes\n"):format(text.clean(shown)))
  output:flush()
end

--- Deploys and follows, until a signal comes or no node is left.
local function follow(self, dir)
  self.watch = require "mpreg.cli.watch".new({ dir }, {
    jobs = self.jobs, output = self.output, connect = function() return connect(self) end,
  })
  local function is_left()
    for _, node in ipairs(self.nodes) do
      if node.pid then return true end
    end
    return false
  end
  self.watch:schedule(0)
  while is_left() and not self.signal do
    local event = self.jobs:wait(self.watch:due())
    if event then
      take(self, event)
    else
      local err = self.watch:look()
      if err and err.reason == "INTERRUPTED" then self.signal = SIGINT end
    end
  end
  return not self.signal and { code = "UNAVAILABLE", reason = "NODE_LOST", attempt = 1,
    message = "all nodes have ended" } or nil
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local dir = options.DIR or "."
  local stat, problem = native.stat(dir)
  if not stat or stat.type ~= "folder" then
    return output:fail(args.fault(("%s: %s"):format(dir, problem or "it is no folder")))
  end
  -- What is wrong with the nodes' flags is said once.
  local _, err = node_config.read { resource = options.resource }
  if err then return output:fail(err) end
  local self = { options = options, output = output, jobs = native.jobs(), nodes = {} }
  for i = 1, options.nodes or 3 do self.nodes[i] = { name = "n" .. i } end
  err = start_all(self) or not self.signal and await_cluster(self) or nil
  if not err and not self.signal then
    greet(self, dir)
    err = follow(self, dir)
  end
  local signal = self.signal or err and err.reason == "INTERRUPTED" and SIGINT
  stop_all(self)
  self.jobs:close()
  if signal then return 128 + signal end
  return err and output:fail(err) or exit.OK
end

return M
