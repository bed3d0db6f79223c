--- `mpreg nodes`: who is there, and who was.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local members = require "mpreg.render.members"

local M = {}

M.command = {
  name = "nodes",
  usage = "[flags]",
  summary = "List the nodes.",
  description = "Lists the nodes of the cluster as the node that is asked sees them: their state, "
    .. "address, resources and load. Those that died or left stand last.",
  examples = "  mpreg nodes\n  mpreg nodes -n 127.0.0.1:7400 -o json",
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = require "mpreg.cli.connection".ask(options, "nodes")
  if not answer then return output:fail(err) end
  if output.json then return output:document(answer) end
  output:write(members.table(codec.decode(answer).nodes,
    { width = output.width, color = output.color }))
  return exit.OK
end

return M
