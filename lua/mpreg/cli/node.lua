--- `mpreg node`: a node, until it is told to stop.

local args = require "mpreg.cli.args"
local node_config = require "mpreg.cli.node_config"

local M = {}

local flags = node_config.flags()
flags[#flags + 1] = args.OUTPUT
flags[#flags + 1] = args.HELP

M.command = {
  name = "node",
  usage = "[flags]",
  summary = "Start a node.",
  description = "Starts a node and serves until SIGTERM or SIGINT. Once it serves it prints one "
    .. "JSON line on stdout: event, node, cluster, addr and pid. Logs go to stderr.",
  examples = "  mpreg node --load examples/hello\n"
    .. "  mpreg node --listen 127.0.0.1:0 --load examples/quakes --resource "
    .. "'catalogue={\"path\":\"examples/quakes/data\"}'",
  flags = flags,
  hidden = { { "--parent", "PID", "End when this process, which started it, has ended." } },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local config, err = node_config.read(options)
  if not config then return output:fail(err) end
  local program = require "mpreg.program"
  config.lua_dir = program.lua_dir
  config.modules_dir = program.modules_dir
  config.parent = tonumber(options.parent) or 0
  return require "mpreg.host".run(config)
end

return M
