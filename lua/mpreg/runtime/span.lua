--- Spans of time as functions write them.

local units = require "mpreg.units"

local M = {}

--- Milliseconds of "200ms", "5s", "1.5m", "2h", or of a number of seconds; nil and what is wrong
--- for anything else.
---@param span string|number
---@return integer? ms
---@return string? problem
function M.to_ms(span)
  local ms, problem
  if type(span) == "string" then
    ms, problem = units.duration_ms(span)
  elseif type(span) == "number" then
    ms = math.floor(span * 1000 + 0.5)
  end
  if not ms then
    return nil, problem or "a time is a number of seconds or a text such as \"5s\""
  end
  if not (ms >= 1 and ms <= 366 * 86400 * 1000) then
    return nil, "a time must be a millisecond or more, and at most 366 days"
  end
  return ms
end

return M
