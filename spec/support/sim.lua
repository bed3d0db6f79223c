--- Worlds of mpreg-sim for specs: runs them, and says how to see a failure again.

local cjson = require "cjson"
local node = require "spec.support.node"

local M = {}

--- Lives through the worlds that the words name and returns the report. A broken promise is an
--- error that carries the command.
---@param ... string|number  scenario and flags
---@return table
function M.live(...)
  local args = { ... }
  args[#args + 1] = "-o"
  args[#args + 1] = "json"
  local result = node.run(node.bin() .. "-sim", args, { timeout = 280 })
  if result.code ~= 0 then
    error(("%s\n%s%s"):format("mpreg-sim " .. table.concat(args, " "), result.err, result.out), 2)
  end
  return cjson.decode(result.out)
end

return M
