--- `mpreg status`: how one node is.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"

local M = {}

M.command = {
  name = "status",
  usage = "[flags]",
  summary = "Show how a node is.",
  description = "Shows one node: how long it is up, whom it knows, its links, what it has served, "
    .. "and its workers. Without --on that is the node that is asked.",
  examples = "  mpreg status\n  mpreg status --on n2 -o json",
  flags = {
    { "--on", "NODE", "The node that shall answer; any node passes the question on.",
      type = args.name },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = require "mpreg.cli.connection".ask(options, "status", nil,
    { on = options.on })
  if not answer then return output:fail(err) end
  if output.json then return output:document(answer) end
  output:write(require "mpreg.render.members".page(codec.decode(answer),
    { width = output.width, color = output.color }))
  return exit.OK
end

return M
