--- `mpreg repl`: Lua, line by line or as a whole, in a session on a node.

local args = require "mpreg.cli.args"
local client = require "mpreg.client"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local native = require "mpreg.native"
local text = require "mpreg.render.text"

local M = {}

local SLOW_S = 0.1        -- what took longer is told how long
local COMPLETE_S = 2      -- Tab waits no longer
local SHOWN = { depth = 2, items = 12, bytes = 400 } -- of a pipeline's output
local RUNS_OFFERED_MAX = 20
-- What is not for people to look at is cut as late as the node allows.
local PLAIN = { depth = 128, items = 1e6, columns = 1e9, bytes = 1e9, total = 1e9 }

M.command = {
  name = "repl",
  usage = "[FILE] [flags]",
  summary = "Talk Lua with a node.",
  description = "Evaluates Lua in a session on a node: line by line on a terminal, with history, "
    .. "completion and commands (:help lists them); a FILE, -e CODE or stdin as a whole, like lua. "
    .. "The session has global variables of its own, which end with the connection.\n\nValues go "
    .. "to stdout, one a line, as Lua writes them; with -o json each as a line of JSON, and then "
    .. "what the code prints goes to stderr.",
  examples = "  mpreg repl\n"
    .. "  mpreg repl -e 'stats.mean({ 1, 2, 6 })'\n"
    .. "  mpreg repl check.lua -n 127.0.0.1:7401 -t 10s\n"
    .. "  echo 'return mpreg.node()' | mpreg repl -o json",
  arguments = { { "FILE", "A file to run; - is stdin.", count = "?" } },
  flags = {
    { "-e --eval", "CODE", "Run this instead." },
    { "-t --timeout", "5s", "Deadline of the whole; on a terminal, of each entry (units ms s m h).",
      type = args.timeout },
    args.NODE, args.OUTPUT, args.HELP,
  },
}

-- ------------------------------------------------------------------------------------------------
-- As a whole
-- ------------------------------------------------------------------------------------------------

--- When did it fail? What the code raised, and values that cannot be sent, came after the
--- beginning, whatever the error's code says.
local function exit_code(err)
  if type(err.traceback) == "table" or err.reason == "UNENCODABLE" then return exit.FAILED end
  return exit.of_error(err)
end

local function no_json(place, why)
  return { code = "INTERNAL", reason = "UNENCODABLE", attempt = 1,
    message = ("value %d has no JSON: %s"):format(place, why), hint = "print it without -o json" }
end

--- Each value as a line of JSON.
local function print_json(result, output)
  for i = 1, result.count do
    if type(result.values) ~= "table" then
      return output:fail(no_json(i, "it cannot leave the node"))
    end
    local value = result.values[i]
    local bytes = codec.encode(value == nil and codec.null or value)
    local json, err = require "mpreg.cli.json".encode(bytes, { sort_keys = true })
    if not json then return output:fail(no_json(i, err.message:gsub("^no JSON: ", ""))) end
    output:write(json .. "\n")
  end
  return exit.OK
end

--- Runs a text and prints its values.
local function run_whole(source, name, options, output)
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local result, err = c:eval(source, {
    name = name, timeout_ms = left(), values = output.json or nil, depth = PLAIN.depth,
    items = PLAIN.items, columns = PLAIN.columns, bytes = PLAIN.bytes, total = PLAIN.total,
    on_output = function(out)
      if output.json then
        io.stderr:write(out)
        return
      end
      output:write(out)
      output:flush()
    end,
  })
  c:close()
  if not result then
    output:fail(err)
    return exit_code(err)
  end
  if output.json then return print_json(result, output) end
  for i = 1, result.count do output:write(tostring(result.text[i]) .. "\n") end
  return exit.OK
end

-- ------------------------------------------------------------------------------------------------
-- On a terminal
-- ------------------------------------------------------------------------------------------------

local Repl = {}
Repl.__index = Repl

--- Says what went wrong; gives nil.
function Repl:fail(err)
  -- An interrupt leaves its ^C on the line.
  if err.reason == "INTERRUPTED" then self.output:write "\n" end
  self.output:fail(err)
  return nil
end

--- Sees to it that there is a node; false if there is none, which has been said then.
function Repl:connect()
  local link = self.link
  local is_first = link.addr == nil
  local is_new, err = link:ensure()
  if is_new == nil then
    self:fail(err)
    return false
  end
  if is_new and not is_first then
    self.output:note(("connected again: %s (%s); the variables of the session before are gone")
      :format(text.clean(link.name), link.addr))
  end
  return true
end

local function print_values(repl, result)
  local styled = require "mpreg.repl.styled"
  for i = 1, result.count do repl.output:write(styled.clean(result.text[i] or "?") .. "\n") end
end

--- Evaluates Lua and shows what comes of it.
---@param source string
---@param opts? { is_timed?: boolean }
function Repl:evaluate(source, opts)
  if not self:connect() then return end
  local output = self.output
  local started = native.now()
  local is_line_open = false
  local result, err, is_abandoned = self.link.client:eval(source, {
    name = "repl", columns = output.width, color = output.color,
    timeout_ms = self.options.timeout,
    on_output = function(out)
      is_line_open = out:sub(-1) ~= "\n"
      output:write(text.clean(out, true))
      output:flush()
    end,
  })
  local seconds = native.now() - started
  if is_line_open and not (err and err.reason == "INTERRUPTED") then output:write "\n" end
  if result then print_values(self, result) else self:fail(err) end
  if is_abandoned then
    self.link:close()
    output:note "the node did not say that it has stopped: the next line connects again"
  end
  if opts and opts.is_timed or seconds > SLOW_S then
    output:write(text.painter(output.color)("dim", text.duration(seconds * 1000)) .. "\n")
  end
end

--- Runs a payload of RUN and shows what comes of it; it is the session's last run then.
---@param payload string
function Repl:execute(payload)
  local output = self.output
  local _, id = require "mpreg.cli.run".execute(self.link.client, payload, {
    trace = true, timeout_ms = self.options.timeout,
    show = function(value)
      output:write(require "mpreg.render.value".text(value, {
        depth = SHOWN.depth, items = SHOWN.items, bytes = SHOWN.bytes, columns = output.width,
        color = output.color,
      }) .. "\n")
    end,
  }, output)
  self.last_run = id or self.last_run
end

local function names_of(list, is_wanted)
  local names = {}
  for _, item in ipairs(list or {}) do
    if not is_wanted or is_wanted(item) then names[#names + 1] = tostring(item.name) end
  end
  return names
end

local function is_deployed(module) return module.origin == "deployed" and module.live ~= false end

-- Commands that are followed by a name of the cluster → those that there are.
local NAMES = {
  on = function(repl) return names_of((repl.link:look())) end,
  run = function(_, ask) return names_of(ask("modules").pipelines) end,
  rollback = function(_, ask)
    local listed = ask("modules")
    local names = names_of(listed.modules, is_deployed)
    for _, name in ipairs(names_of(listed.pipelines, is_deployed)) do names[#names + 1] = name end
    return names
  end,
  -- Modules; the functions of one once its name is there.
  source = function(_, ask, typed)
    local names = names_of(ask("modules").modules)
    for _, fun in ipairs(ask("functions").functions or {}) do
      local module = tostring(fun.module) .. "."
      if typed:sub(1, #module) == module then names[#names + 1] = tostring(fun.name) end
    end
    return names
  end,
}
NAMES.history = NAMES.rollback

--- Runs of the node that is connected, and the newest of all.
function NAMES.trace(_, ask)
  local names = { "last" }
  for _, listed in ipairs(ask("runs", { limit = RUNS_OFFERED_MAX }).runs or {}) do
    names[#names + 1] = tostring(listed.run_id)
  end
  return names
end
NAMES.why, NAMES.cancel, NAMES.resume = NAMES.trace, NAMES.trace, NAMES.trace

--- Completes the last word of `:deploy`.
local function complete_path(typed, width)
  local planner = require "mpreg.repl.complete"
  local at, word = typed:match("()(%S*)$")
  local names = word:sub(1, 1) == "-" and planner.beginning({ "--force" }, word)
    or planner.paths(word, native.list, function(path)
      local stat = native.stat(path)
      return stat ~= nil and stat.type == "folder"
    end)
  return planner.plan(typed, at, names, width)
end

--- Completes the VERSION of `:rollback MODULE VERSION`.
local function complete_version(typed, at, ask, width)
  local module, from = typed:match("^(%S+)%s+()%S*$", at)
  if not module then return nil end
  local planner = require "mpreg.repl.complete"
  local names = {}
  for i, v in ipairs(require "mpreg.render.deploy".versions(ask("history", { module = module }))) do
    names[i] = v.version
  end
  return planner.plan(typed, from, planner.beginning(names, typed:sub(from)), width)
end

--- Completes what stands before the cursor (called on Tab): see mpreg.repl.complete.
local function complete(repl, typed)
  local planner = require "mpreg.repl.complete"
  local commands = require "mpreg.repl.commands"
  local width = repl.output.width or 80
  local start = typed:match("^%s*():%a*$")
  if repl.pending == "" and start then
    local names = {}
    for i, name in ipairs(commands.names()) do names[i] = ":" .. name end
    return planner.plan(typed, start, planner.beginning(names, typed:sub(start)), width)
  end
  local name, at = typed:match("^%s*:(%a+)%s+()")
  if repl.pending == "" and name == "deploy" then return complete_path(typed, width) end
  local c = repl.link.client
  if not c or not c:is_open() then return nil end
  if repl.pending == "" and NAMES[name] then
    local function ask(what, options)
      return c:query(what, nil, { timeout = COMPLETE_S, options = options }) or {}
    end
    local word = typed:sub(at)
    if name == "rollback" and word:find("%s") then
      return complete_version(typed, at, ask, width)
    end
    return planner.plan(typed, at, planner.beginning(NAMES[name](repl, ask, word), word), width)
  end
  -- What follows a command is Lua, or a name as in Lua.
  local before = name and repl.pending == "" and typed:sub(1, at - 1) or ""
  local sent = repl.pending .. typed:sub(#before + 1)
  local found = c:complete(sent, { timeout = COMPLETE_S })
  if not found or type(found.names) ~= "table" then return nil end
  local from = tonumber(found.from) - #repl.pending + #before
  return planner.plan(typed, from, found.names, width)
end

--- Loads the history into the editor; gives a function that adds an entry to both.
local function open_history(repl)
  local editline = require "mpreg.editline"
  local history = require "mpreg.repl.history"
  local path = history.path(os.getenv)
  local file = path and io.open(path, "rb")
  if file then
    local entries, is_cut = history.decode(file:read("*a") or "")
    file:close()
    for _, entry in ipairs(entries) do editline.remember(entry) end
    if is_cut then editline.store(path, history.encode_all(entries), true) end
    repl.last_entry = entries[#entries]
  end
  return function(entry)
    if entry == repl.last_entry then return end
    repl.last_entry = entry
    editline.remember(entry)
    if not path then return end
    local ok, problem = editline.store(path, history.encode(entry), false)
    if not ok then
      path = nil
      repl.output:note("no history is kept: " .. text.clean(problem))
    end
  end
end

--- Reads one entry: a command, or Lua until it is whole. Nil at the end, false if it was dropped.
local function read_entry(repl)
  local editline = require "mpreg.editline"
  local chunk = require "mpreg.repl.chunk"
  local name = text.clean(repl.link.name)
  local prompt = name .. "> "
  local more = ("."):rep(text.width(name)) .. "> "
  repl.pending = ""
  while true do
    local line, why = editline.read(repl.pending == "" and prompt or more)
    if not line then
      if why == "interrupt" then return false end
      -- At the end of what goes on it is the entry that ends.
      if repl.pending == "" then return nil end
      repl.output:write "\n"
      return false
    end
    local entry = repl.pending .. line
    if repl.pending == "" and chunk.command(line) or chunk.is_whole(entry) then return entry end
    repl.pending = entry .. "\n"
  end
end

local function banner(repl)
  local link = repl.link
  local paint = text.painter(repl.output.color)
  local is_live = require "mpreg.render.members".is_live
  local live = 0
  for _, node in ipairs(link.nodes) do live = live + (is_live(node) and 1 or 0) end
  repl.output:write(("%s · %s (%s) · cluster %s · %s\n%s\n"):format(
    paint("bold", "mpreg " .. require "mpreg.program".version), text.clean(link.name), link.addr,
    text.clean(link.cluster), text.count(live, "node"),
    paint("dim", "Lua runs there. :help lists commands, Tab completes, Ctrl-D ends.")))
end

--- The loop.
local function talk(options, output)
  local repl = setmetatable({
    options = options, output = output, pending = "",
    link = require "mpreg.repl.link".new(client.nodes(options.node),
      { timeout_ms = options.timeout }),
  }, Repl)
  local is_up, err = repl.link:ensure()
  if is_up == nil then return output:fail(err) end
  local chunk = require "mpreg.repl.chunk"
  local editline = require "mpreg.editline"
  editline.open("mpreg", require "mpreg.repl.history".ENTRIES_MAX,
    function(typed) return complete(repl, typed) end)
  local remember = open_history(repl)
  banner(repl)
  while not repl.is_done do
    output:flush()
    local entry = read_entry(repl)
    if entry == nil then
      output:write "\n"
      break
    end
    if entry and not chunk.is_blank(entry) then
      remember(entry)
      local name, rest = chunk.command(entry)
      if name then
        require "mpreg.repl.commands".run(repl, name, rest)
      else
        repl:evaluate(entry)
      end
    end
  end
  editline.close()
  repl.link:close()
  return exit.OK
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  if options.eval and options.FILE then
    return output:fail(args.fault("-e CODE or a FILE: not both"))
  end
  if options.eval then return run_whole(options.eval, "repl", options, output) end
  local path = options.FILE
  if not path and native.isatty(0) then
    if output.json then
      return output:fail(args.fault("-o json is for -e CODE, a FILE or stdin"))
    end
    return talk(options, output)
  end
  path = path or "-"
  local source, err = require "mpreg.cli.json".read_file(path)
  if not source then return output:fail(err) end
  local name = path == "-" and "stdin" or path:match("[^/]+$") or path
  return run_whole((source:gsub("^#[^\n]*", "")), name, options, output)
end

return M
