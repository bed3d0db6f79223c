--- The command line: finds the command, reads its flags, runs it, and gives the exit code.
---
--- A command's file is loaded when that command is asked for, and nothing else: a node must be
--- ready within milliseconds.

local exit = require "mpreg.cli.exit"

local M = {}

-- Name, and the line that `mpreg --help` says of it.
local COMMANDS = {
  { "node", "Start a node." },
  { "dev", "Start a cluster that serves a folder, and follows each save." },
  { "call", "Call a function and print its result." },
  { "run", "Run a pipeline." },
  { "plan", "Check a pipeline and show how it would run." },
  { "runs", "List the runs that nodes keep." },
  { "trace", "Show what happened in a run." },
  { "why", "Say why a run took so long, or why it failed." },
  { "cancel", "Cancel a run." },
  { "resume", "Run again what had not succeeded in a run." },
  { "functions", "List the functions that can be called." },
  { "nodes", "List the nodes." },
  { "status", "Show how a node is." },
  { "topology", "Show which nodes are linked." },
  { "modules", "List the modules." },
  { "deploy", "Deploy modules to all nodes while they serve." },
  { "rollback", "Make an earlier version of a module live again." },
  { "undeploy", "Take a deployed module off all nodes." },
  { "history", "Show a module's deploys, rollbacks and undeploys." },
  { "forget", "Forget a node that died or left." },
  { "pub", "Publish messages to a topic." },
  { "sub", "Print the messages of topics as they come." },
  { "bench", "Measure calls, runs or topics." },
  { "repl", "Talk Lua with a node." },
}

-- Commands that `mpreg --help` does not list: for scripts of ours, not for people.
local HIDDEN = { complete = true }

local function names()
  local list = {}
  for i, command in ipairs(COMMANDS) do list[i] = command[1] end
  return list
end

--- The commands that `mpreg --help` lists: name and summary of each.
---@return table[]
function M.commands() return COMMANDS end

--- The text of `mpreg --help`.
---@return string
function M.help()
  local out = {
    "Usage: mpreg COMMAND [ARGUMENTS] [FLAGS]", "",
    "Runs Lua functions and pipelines of them on a cluster of nodes; any node answers for all.", "",
    "Commands:",
  }
  for _, command in ipairs(COMMANDS) do
    out[#out + 1] = ("  %-12s%s"):format(command[1], command[2])
  end
  for _, line in ipairs {
    "", "Flags:",
    "  -h, --help  Show this help; mpreg COMMAND --help shows a command's.",
    "  --version   Show the version.", "",
    "Flags of a command stand anywhere after it; -- ends them. Exit codes: 0 success, 1 failed",
    "after it began, 2 refused before anything ran, 3 no node can serve it, 4 deadline, 5 refused",
    "by policy, 130 interrupted.", "",
    "Example:",
    "  mpreg node --load examples/hello &",
    "  mpreg call hello.greet World",
  } do
    out[#out + 1] = line
  end
  return table.concat(out, "\n") .. "\n"
end

--- Does the command line ask for JSON? Looked at even if it is wrong otherwise: its error must come
--- in the form that was asked for.
local function wants_json(words)
  for i, word in ipairs(words) do
    if word == "--" then return false end
    if word == "-ojson" or word == "--output=json" then return true end
    if (word == "-o" or word == "--output") and words[i + 1] == "json" then return true end
  end
  return false
end

local TAKES_VALUE = { ["-o"] = true, ["--output"] = true, ["-n"] = true, ["--node"] = true,
  ["-t"] = true, ["--timeout"] = true }

--- Splits the words into the command's name and the rest. The flags that all commands share may
--- stand before it.
local function split(words)
  local i = 1
  while words[i] and words[i]:sub(1, 1) == "-" do
    i = i + (TAKES_VALUE[words[i]] and 2 or 1)
  end
  local rest = {}
  for k = 1, #words do
    if k ~= i then rest[#rest + 1] = words[k] end
  end
  return words[i], rest
end

local function usage_fault(message, hint)
  return require "mpreg.cli.args".fault(message, hint)
end

local function run_command(words)
  local name, rest = split(words)
  local first = words[1]
  local function new_output()
    return require "mpreg.cli.output".new { json = wants_json(words) }
  end
  if not name then
    if first == "--version" then
      new_output():write(("mpreg %s\n"):format(require "mpreg.program".version))
      return exit.OK
    elseif first == "-h" or first == "--help" then
      new_output():write(M.help())
      return exit.OK
    elseif first == nil then
      io.stderr:write(M.help())
      return exit.REFUSED
    end
    return new_output():fail(usage_fault(("unknown flag '%s'"):format(first),
      "mpreg --help lists the commands"))
  end
  if name == "help" then name, rest = rest[1] or "", { "--help" } end
  if name == "" then
    new_output():write(M.help())
    return exit.OK
  end
  local known = HIDDEN[name]
  for _, command in ipairs(COMMANDS) do known = known or command[1] == name end
  if not known then
    local near = require "mpreg.suggest".nearest(name, names())
    return new_output():fail(usage_fault(("unknown command '%s'"):format(name),
      near and ("did you mean %s?"):format(near) or "mpreg --help lists the commands"))
  end

  local command = require("mpreg.cli." .. name)
  local options, err = require "mpreg.cli.args".parse(command.command, rest)
  if not options then return new_output():fail(err) end
  if options.help then
    new_output():write(require "mpreg.cli.args".help(command.command))
    return exit.OK
  end
  return command.run(options, require "mpreg.cli.output".new { json = options.output == "json" })
end

--- Runs a command line.
---@param words string[]  without the program's name
---@return number exit_code
function M.main(words)
  local ok, result = xpcall(run_command, function(err)
    if type(err) == "table" and err.closed then return err end
    return debug.traceback(tostring(err), 2)
  end, words)
  if ok then
    return io.stdout:flush() and result or exit.FAILED
  end
  -- Nobody reads any more: as quiet as any program in a pipe.
  if type(result) == "table" then return exit.FAILED end
  io.stderr:write("error: INTERNAL/BUG: ", result, "\n")
  return exit.FAILED
end

return M
