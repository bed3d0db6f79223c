--- `mpreg cancel`: ends a run, and says what became of each step.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local recorded = require "mpreg.cli.recorded"

local M = {}

M.command = {
  name = "cancel",
  usage = "RUN [flags]",
  summary = "Cancel a run.",
  description = "Ends a run, with everything that its functions have called, and waits until that "
    .. "is so. OUTCOME says what became of each step: done, it had ended before; stopped, its "
    .. "workers have confirmed that it does not run any more; never_started; unreachable, nobody "
    .. "could confirm anything. Of a run that was over nothing is changed.",
  examples = "  mpreg cancel last\n  mpreg cancel 01KB6QJ0V8XK3M2R7T9C4D5E6F -o json",
  arguments = { recorded.ARGUMENT },
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = recorded.ask(options, "cancel")
  if not answer then
    output:fail(err)
    return exit.of_question(err)
  end
  if output.json then return output:document(answer) end
  output:write(require "mpreg.render.runs".cancelled(codec.decode(answer),
    { width = output.width, color = output.color }))
  return exit.OK
end

return M
