--- Options of `mpreg.with`: checked once, kept in the form that is sent.

local failure = require "mpreg.runtime.failure"
local span = require "mpreg.runtime.span"

local M = {}

local RETRIES_MAX = 1000
local NEEDS_MAX = 32

local function is_text(value) return type(value) == "string" and value ~= "" and #value <= 256 end

local CHECKS = {
  needs = function(value)
    if is_text(value) then
      value = { value }
    end
    local is_list = type(value) == "table" and #value <= NEEDS_MAX
    for key, name in pairs(is_list and value or {}) do
      is_list = is_list and type(key) == "number" and is_text(name)
    end
    if not is_list then
      return nil, "must be a list of resource names"
    end
    return #value > 0 and value or nil
  end,
  version = function(value)
    if not is_text(value) then
      return nil, "must be a text such as \">=1.0 <2\""
    end
    return value
  end,
  on = function(value)
    if not is_text(value) then
      return nil, "must be a node's name"
    end
    return value
  end,
  timeout = span.to_ms,
  retries = function(value)
    if type(value) ~= "number" or value < 0 or value % 1 ~= 0 or value > RETRIES_MAX then
      return nil, ("must be a whole number from 0 to %d"):format(RETRIES_MAX)
    end
    return value
  end,
}
local TARGETS = { timeout = "timeout_ms" }

--- Checks options; raises at the given level.
---@param options table
---@param level integer
---@return table
function M.check(options, level)
  if type(options) ~= "table" then
    error("mpreg.with: a table of options is expected", level + 1)
  end
  local checked = {}
  for key, value in pairs(options) do
    local check = CHECKS[key]
    local why = "there is no such option; there are needs, on, retries, timeout and version"
    if check then
      value, why = check(value)
    end
    if why then
      error(failure.new("INVALID_ARGUMENT", ("mpreg.with: %s: %s"):format(tostring(key), why),
        { reason = "BAD_OPTION" }), level + 1)
    end
    checked[TARGETS[key] or key] = value
  end
  return checked
end

return M
