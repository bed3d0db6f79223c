--- Which deployed module a name stands for: one answer for each release that is open. A call runs
--- in one release from its beginning to its end.

local M = {}

--- Modules by name. Release 0 is always open: in it nothing is deployed.
local modules_of = { [0] = {} }
--- The numbers of the releases, the one that was opened last at the end.
local opened = { 0 }

---@param number integer
---@param modules table<string, table>
function M.open(number, modules)
  if not modules_of[number] then
    opened[#opened + 1] = number
  end
  modules_of[number] = modules
end

---@param number integer
function M.close(number)
  for i = #opened, 2, -1 do
    if opened[i] == number then
      table.remove(opened, i)
      modules_of[number] = nil
    end
  end
end

---@param number integer
---@param name string
---@return table? module
function M.find(number, name)
  local modules = modules_of[number]
  return modules and modules[name]
end

--- The one that modules are loaded for before a call of theirs came.
---@return integer
function M.latest() return opened[#opened] end

--- The numbers of those that are open.
---@return integer[]
function M.numbers() return opened end

--- The module is there no more.
---@param module table
function M.drop(module)
  for _, modules in pairs(modules_of) do
    if modules[module.name] == module then
      modules[module.name] = nil
    end
  end
end

return M
