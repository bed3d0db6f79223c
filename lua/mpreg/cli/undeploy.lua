--- `mpreg undeploy`: a deployed module, gone from all nodes.

local args = require "mpreg.cli.args"

local M = {}

M.command = {
  name = "undeploy",
  usage = "MODULE [flags]",
  summary = "Take a deployed module off all nodes.",
  description = "Takes a deployed module or pipeline off all nodes at once. What runs goes on with "
    .. "it. Nodes that have loaded a module of that name from their own files serve that one "
    .. "again. A rollback brings it back.",
  examples = "  mpreg undeploy quakes",
  arguments = {
    { "MODULE", "The module's name, or a pipeline's.", type = args.module_name,
      complete = "MODULE (live)" },
  },
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  return require "mpreg.cli.change".run(options, "undeploy",
    { options = { module = options.MODULE } }, output)
end

return M
