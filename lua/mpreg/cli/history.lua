--- `mpreg history`: what became of a module, and who did it.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"

local M = {}

M.command = {
  name = "history",
  usage = "MODULE [flags]",
  summary = "Show a module's deploys, rollbacks and undeploys.",
  description = "Shows what was done to a deployed module or pipeline, the newest first: when (in "
    .. "local time), by whom, at which node. STATE: live, what calls are served with; superseded, "
    .. "replaced by a later entry; overtaken, replaced by one that did not know of it.",
  examples = "  mpreg history quakes\n  mpreg history quakes -o json",
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
  local answer, err = require "mpreg.cli.connection".ask(options, "history", nil,
    { options = { module = options.MODULE } })
  if not answer then return output:fail(err) end
  if output.json then return output:document(answer) end
  output:write(require "mpreg.render.deploy".history(codec.decode(answer),
    { width = output.width, color = output.color }))
  return exit.OK
end

return M
