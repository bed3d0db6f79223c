--- Texts that a node has coloured, safe to print on a terminal: colours stay, all else that a
--- terminal takes for commands is escaped.

local text = require "mpreg.render.text"

local M = {}

---@param s string
---@return string
function M.clean(s)
  local out, at = {}, 1
  while true do
    local first, last = s:find("\27%[[%d;]*m", at)
    if not first then break end
    out[#out + 1] = text.clean(s:sub(at, first - 1), true)
    out[#out + 1] = s:sub(first, last)
    at = last + 1
  end
  out[#out + 1] = text.clean(s:sub(at), true)
  return table.concat(out)
end

return M
