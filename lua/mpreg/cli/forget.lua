--- `mpreg forget`: takes a node that will not come back off the list.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"

local M = {}

M.command = {
  name = "forget",
  usage = "NODE [flags]",
  summary = "Forget a node that died or left.",
  description = "Takes a node that died or left off every node's list, so that nobody tries to "
    .. "reach it any more. One that is alive is not forgotten: stop it first. A forgotten node "
    .. "that is started again joins as any other.",
  examples = "  mpreg forget n4",
  arguments = { { "NODE", "The node's name.", type = args.name, complete = "NODE (gone)" } },
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = require "mpreg.cli.connection".ask(options, "forget", nil,
    { name = options.NODE })
  if not answer then return output:fail(err) end
  if output.json then return output:document(answer) end
  output:write(("forgot %s\n"):format(tostring(codec.decode(answer).forgotten)))
  return exit.OK
end

return M
