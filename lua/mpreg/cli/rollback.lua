--- `mpreg rollback`: what was live before, live again.

local args = require "mpreg.cli.args"

local M = {}

M.command = {
  name = "rollback",
  usage = "MODULE [flags]",
  summary = "Make an earlier version of a module live again.",
  description = "Makes the version of a module or pipeline live again that was live before, on all "
    .. "nodes at once, as deploy does. Once more goes one further back. After an undeploy it "
    .. "brings back what that took away.",
  examples = "  mpreg rollback quakes\n  mpreg rollback quakes --to 1.1.0",
  arguments = {
    { "MODULE", "The module's name, or a pipeline's.", type = args.module_name,
      complete = "MODULE (live)" },
  },
  flags = {
    { "--to", "VERSION", "That version, or the latest that fits: ^1.2, <2, and so on.",
      complete = "VERSION (earlier)" },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  return require "mpreg.cli.change".run(options, "rollback",
    { options = { module = options.MODULE, to = options.to } }, output)
end

return M
