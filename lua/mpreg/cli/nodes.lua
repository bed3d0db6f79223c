--- `mpreg nodes`: who is there.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"

local M = {}

M.command = {
  name = "nodes",
  usage = "[flags]",
  summary = "List the nodes.",
  description = "Lists the nodes: their state, resources and load.",
  examples = "  mpreg nodes\n  mpreg nodes -n 127.0.0.1:7400 -o json",
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

local function number(value, format)
  return type(value) == "number" and format:format(value) or ""
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = require "mpreg.cli.connection".ask(options, "nodes")
  if not answer then return output:fail(err) end
  if output.json then return output:document(answer) end
  local rows = {}
  for i, node in ipairs(codec.decode(answer).nodes) do
    rows[i] = { node.name, node.cluster, node.addr, node.state, number(node.workers, "%d"),
      number(node.load, "%.4g"), node.version, number(node.rtt_ms, "%.1f ms"),
      table.concat(node.resources or {}, ", "), node.insecure == true and "insecure" or "" }
  end
  output:write(require "mpreg.render.table".render({
    { title = "NODE" }, { title = "CLUSTER" }, { title = "ADDRESS" }, { title = "STATE" },
    { title = "WORKERS", align = "right" }, { title = "LOAD", align = "right" },
    { title = "VERSION" }, { title = "RTT", align = "right" }, { title = "RESOURCES" },
    { title = "NOTE" },
  }, rows, { width = output.width, color = output.color }))
  return exit.OK
end

return M
