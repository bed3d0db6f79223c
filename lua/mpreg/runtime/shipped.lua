--- Libraries of the installation that a module may require: some of Lua's and C's, and the modules
--- that every node has, which are in the folder modules/ beside the one of this library. The latter
--- are the installation's, whatever files the node was given under their names.

local M = {}

local LIBRARIES = { ["cjson"] = true, ["cjson.safe"] = true,
  ["string.buffer"] = true, ["table.new"] = true, ["table.clear"] = true,
  ["mpreg.pipeline"] = true }
--- Not "mpreg": under this name everybody finds the library.
local MODULES = { csv = true, json = true, stats = true, tables = true, text = true, time = true }

local folder = (debug.getinfo(1, "S").source:match("^@(.-)lua/mpreg/runtime/[^/]*$") or "")
  .. "modules/"

--- Whether the runtime's own `require` gives it.
---@param name string
---@return boolean
function M.is_library(name) return LIBRARIES[name] == true end

--- The source of a module that every node has.
---@param name string
---@return string?
function M.source(name)
  local file = MODULES[name] and io.open(folder .. name .. ".lua", "rb")
  local source = file and file:read("*a")
  if file then
    file:close()
  end
  return source
end

--- Whether it is the name of such a module.
---@param name string
---@return boolean
function M.is_module(name) return MODULES[name] == true end

return M
