--- What begins with a colon. Each command gets the REPL (lua/mpreg/cli/repl.lua: `link`, `output`,
--- `options`, `evaluate`, `execute`, `fail`) and the rest of its line.

local args = require "mpreg.cli.args"
local suggest = require "mpreg.suggest"
local text = require "mpreg.render.text"

local M = {}

local CONNECT_MS = 2000 -- to reach a node that :all asks
local ALL_MS = 10000    -- for its answer, without a -t

-- Name, what follows it, what it does; in the order of :help.
local COMMANDS = {
  { "help", "", "Show this help." },
  { "nodes", "", "List the nodes." },
  { "functions", "[PATTERN]", "List the functions that can be called." },
  { "modules", "", "List the modules and pipelines." },
  { "status", "", "Show how this node is." },
  { "doc", "NAME", "What is known of a function, a module or a pipeline." },
  { "source", "FUN|MODULE", "The source of a module, or of one of its functions, as it is live." },
  { "deploy", "PATH… [--force]", "Deploy modules, files or folders of them, to all nodes." },
  { "rollback", "MODULE [VERSION]", "Make the version before, or that one, live again." },
  { "history", "MODULE", "The deploys, rollbacks and undeploys of a module." },
  { "on", "NODE", "Talk to that node from now on, in a new session." },
  { "all", "EXPR", "Evaluate on every node that is alive; equal answers are folded." },
  { "run", "PIPELINE [INPUT]", "Run a pipeline (a name or a file) and show its trace; INPUT is "
    .. "JSON or @FILE." },
  { "runs", "", "List the runs that nodes keep, the newest first." },
  { "trace", "[RUN] [--follow]", "Show what happened in a run; without RUN the session's last." },
  { "why", "[RUN]", "Say why a run took so long, or why it failed." },
  { "cancel", "[RUN]", "Cancel a run, and say what became of its steps." },
  { "resume", "[RUN]", "Run again what had not succeeded in a run." },
  { "sub", "PATTERN", "Print the messages of topics as they come, until Ctrl-C." },
  { "time", "EXPR", "Evaluate and say how long it took." },
  { "quit", "", "End." },
}

local run = {}
for name, command in pairs(require "mpreg.repl.runs") do run[name] = command end

--- The names of all commands.
---@return string[]
function M.names()
  local list = {}
  for i, command in ipairs(COMMANDS) do list[i] = command[1] end
  return list
end

--- The text of `:help`.
---@return string
function M.help()
  local out = {}
  local rows = {}
  for i, command in ipairs(COMMANDS) do
    rows[i] = { (":%s %s"):format(command[1], command[2]):gsub(" $", ""), command[3] }
  end
  args.definitions(out, rows)
  return table.concat({
    "Lua is evaluated on the node; a value that it gives is shown and stays as `_`. Functions and",
    "modules of the cluster are names: stats.mean({ 1, 2 }). Commands:", "",
    table.concat(out, "\n"), "",
    "Tab completes, Ctrl-C drops the line or interrupts what runs, Ctrl-D ends, Ctrl-R searches",
    "what was typed before.",
  }, "\n") .. "\n"
end

--- Runs a command.
---@param repl table
---@param name string
---@param rest string
function M.run(repl, name, rest)
  if not run[name] then
    local near = suggest.nearest(name, M.names())
    return repl:fail(args.fault(("unknown command ':%s'"):format(text.clean(name)),
      near and ("did you mean :%s?"):format(near) or ":help lists the commands"))
  end
  for _, command in ipairs(COMMANDS) do
    local wants = command[2]
    if command[1] == name and rest == "" and wants ~= "" and wants:sub(1, 1) ~= "[" then
      return repl:fail(args.fault((":%s needs %s"):format(name, wants)))
    elseif command[1] == name and rest ~= "" and wants == "" then
      return repl:fail(args.fault((":%s takes nothing"):format(name)))
    end
  end
  return run[name](repl, rest)
end

local function style(repl) return { width = repl.output.width, color = repl.output.color } end

--- The answer to a query; nil if it failed, which has been said then.
local function ask(repl, what, options)
  if not repl:connect() then return nil end
  local answer, err = repl.link.client:query(what, nil,
    { timeout_ms = repl.options.timeout, options = options })
  if not answer then return repl:fail(err) end
  return answer
end

function run.help(repl) repl.output:write(M.help()) end

function run.quit(repl) repl.is_done = true end

function run.nodes(repl)
  local answer = ask(repl, "nodes")
  if not answer then return end
  repl.link.nodes = answer.nodes
  repl.output:write(require "mpreg.render.members".table(answer.nodes, style(repl)))
end

function run.functions(repl, pattern)
  local answer = ask(repl, "functions")
  if not answer then return end
  local functions = require "mpreg.cli.functions"
  local found = functions.matching(answer.functions, pattern ~= "" and pattern or nil)
  if #found == 0 then return repl.output:note "no functions" end
  repl.output:write(functions.text(found, style(repl)))
end

function run.modules(repl)
  local answer = ask(repl, "modules")
  if answer then repl.output:write(require "mpreg.cli.modules".text(answer, style(repl))) end
end

function run.status(repl)
  local answer = ask(repl, "status")
  if answer then repl.output:write(require "mpreg.render.members".page(answer, style(repl))) end
end

function run.doc(repl, name)
  local functions = ask(repl, "functions")
  local modules = functions and ask(repl, "modules")
  if not modules then return end
  local page, hint = require "mpreg.repl.doc".page(name, functions.functions, modules, style(repl))
  if page then return repl.output:write(page) end
  return repl:fail { code = "NOT_FOUND", reason = "UNKNOWN_NAME", hint = hint,
    message = ("there is no function, module or pipeline %s"):format(text.clean(name)) }
end

--- The module of a function, and the function's own name; a name that is no function's is a
--- module's.
local function module_of(functions, name)
  for _, fun in ipairs(functions) do
    if fun.name == name then return fun.module, name:sub(#fun.module + 2) end
  end
  return name
end

local function is_known(modules, listed, name)
  for _, list in ipairs { modules.modules, modules.pipelines or {} } do
    for _, item in ipairs(list) do
      if item.name == name then return true end
    end
  end
  for _, fun in ipairs(listed.functions) do
    if fun.module == name then return true end
  end
  return false
end

--- The name of a module, pipeline or function that is nearest to one that there is not.
local function nearest_of(modules, listed, name)
  local names = {}
  for _, list in ipairs { modules.modules, modules.pipelines or {}, listed.functions } do
    for _, item in ipairs(list) do names[#names + 1] = text.clean(item.name) end
  end
  return suggest.nearest(name, names)
end

--- A node that has loaded a module which this one has not and which is not deployed.
local function holder_of(repl, listed, module)
  local holder
  for _, list in ipairs { listed.modules, listed.pipelines or {} } do
    for _, item in ipairs(list) do
      if item.name == module then
        if item.origin == "deployed" and item.live then return nil end
        for _, node in ipairs(item.nodes or {}) do
          if node == repl.link.name then return nil end
        end
        holder = holder or (item.nodes or {})[1]
      end
    end
  end
  return holder
end

function run.source(repl, name)
  local listed = ask(repl, "functions")
  local modules = listed and ask(repl, "modules")
  if not modules then return end
  local module, fun = module_of(listed.functions, name)
  if not fun and not is_known(modules, listed, module) then
    local near = nearest_of(modules, listed, module)
    return repl:fail { code = "NOT_FOUND", reason = "UNKNOWN_NAME",
      message = ("there is no function, module or pipeline %s"):format(text.clean(name)),
      hint = near and ("did you mean %s?"):format(near) or ":functions lists what there is" }
  end
  local answer = ask(repl, "source", { module = module, on = holder_of(repl, modules, module) })
  if not answer then return end
  local source = require "mpreg.render.source"
  local title = ("-- %s %s"):format(text.clean(module), text.clean(answer.version or ""))
  local hash = require "mpreg.render.deploy".short(answer.hash)
  if hash ~= "" then title = ("%s (%s)"):format(title, hash) end
  local part = fun and source.of_function(answer.source, fun) or answer.source
  repl.output:write(source.text(title .. "\n" .. part, style(repl)))
end

--- The words of a line.
local function words_of(rest)
  local words = {}
  for word in rest:gmatch("%S+") do words[#words + 1] = word end
  return words
end

function run.deploy(repl, rest)
  local unit = require "mpreg.unit"
  local paths, is_forced = {}, nil
  for _, word in ipairs(words_of(rest)) do
    if word == "--force" then
      is_forced = true
    elseif word:sub(1, 1) == "-" then
      return repl:fail(args.fault((":deploy knows no '%s'"):format(text.clean(word)),
        "mpreg deploy has more flags"))
    else
      paths[#paths + 1] = word
    end
  end
  if #paths == 0 then return repl:fail(args.fault(":deploy needs PATH…")) end
  local modules, err = unit.collect(paths)
  err = err or unit.check(modules)
  if err then return repl:fail(err) end
  if not repl:connect() then return end
  require "mpreg.cli.change".execute(repl.link.client, "deploy", {
    options = { force = is_forced }, payload = unit.encode(modules),
    timeout_ms = repl.options.timeout,
  }, repl.output)
end

function run.rollback(repl, rest)
  local words = words_of(rest)
  if #words > 2 then return repl:fail(args.fault(":rollback takes MODULE and VERSION")) end
  if not repl:connect() then return end
  require "mpreg.cli.change".execute(repl.link.client, "rollback", {
    options = { module = words[1], to = words[2] }, timeout_ms = repl.options.timeout,
  }, repl.output)
end

function run.history(repl, name)
  local answer = ask(repl, "history", { module = name })
  if answer then
    repl.output:write(require "mpreg.render.deploy".history(answer, style(repl)))
  end
end

function run.on(repl, name)
  if not repl:connect() then return end
  local ok, err = repl.link:go(name)
  if not ok then return repl:fail(err) end
  repl.output:note(("on %s (%s), in a new session"):format(text.clean(repl.link.name),
    repl.link.addr))
end

function run.sub(repl, pattern)
  local err = args.topic_fault(pattern, true)
  if err then return repl:fail(err) end
  if not repl:connect() then return end
  require "mpreg.cli.sub".execute(repl.link.client, { PATTERN = pattern }, nil, repl.output)
  -- An interrupt leaves its ^C on the line.
  repl.output:write "\n"
end

function run.time(repl, source) repl:evaluate(source, { is_timed = true }) end

function run.run(repl, rest)
  local source = require "mpreg.cli.source"
  local what, word = rest:match("^(%S+)%s*(.*)$")
  local input, err, payload
  if word == "-" then
    return repl:fail(args.fault("INPUT is JSON or @FILE: stdin is where you type"))
  end
  input, err = source.input(word ~= "" and word or nil)
  if err then return repl:fail(err) end
  payload, err = source.payload(what, input)
  if not payload then return repl:fail(err) end
  if repl:connect() then repl:execute(payload) end
end

--- What one node makes of the source: what it printed, then the values or what went wrong.
local function answer_of(repl, node, source)
  local client = require "mpreg.client"
  local c, err = client.connect { nodes = { node.addr }, timeout_ms = CONNECT_MS }
  local parts = {}
  local result
  if c then
    result, err = c:eval(source, {
      timeout_ms = repl.options.timeout or ALL_MS, color = repl.output.color,
      columns = repl.output.width,
      on_output = function(out) parts[#parts + 1] = text.clean(out, true) end,
    })
    c:close()
  end
  if result then
    local styled = require "mpreg.repl.styled"
    for _, value in ipairs(result.text) do parts[#parts + 1] = styled.clean(value) .. "\n" end
  else
    -- Where it happened stands before it; the frames differ from node to node.
    parts[#parts + 1] = require "mpreg.render.error".text({ code = err.code, reason = err.reason,
      message = err.message, hint = err.hint }, { color = repl.output.color })
  end
  return {
    node = tostring(node.name), text = table.concat(parts), is_failure = result == nil,
  }, result == nil and err.reason == "INTERRUPTED"
end

function run.all(repl, source)
  if not repl:connect() then return end
  local nodes, err = repl.link:look()
  if not nodes then return repl:fail(err) end
  local answers = {}
  for _, node in ipairs(nodes) do
    if node.state == "alive" then
      local answer, is_interrupted = answer_of(repl, node, source)
      answers[#answers + 1] = answer
      if is_interrupted then break end
    elseif node.state == "suspect" then
      answers[#answers + 1] = { node = tostring(node.name), text = "not asked: it is suspect",
        is_failure = true }
    end
  end
  repl.output:write(require "mpreg.repl.fold".text(answers, style(repl)))
end

return M
