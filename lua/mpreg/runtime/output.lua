--- What functions print: whole lines go to the log, the rest waits for the end of its line, or of
--- the call.

local native = require "mpreg.worker"

local M = {}

local INFO = 1
local LINE_BYTES_MAX = 8192

local rest = ""

--- Takes text as a stream does.
---@param text string
function M.write(text)
  rest = rest .. text
  local from = 1
  while true do
    local at = rest:find("\n", from, true)
    if not at and #rest - from >= LINE_BYTES_MAX then
      at = from + LINE_BYTES_MAX
    end
    if not at then
      break
    end
    native.log(INFO, (rest:sub(from, rest:sub(at, at) == "\n" and at - 1 or at)))
    from = at + 1
  end
  rest = rest:sub(from)
  if rest ~= "" then
    native.has_text()
  end
end

--- The call ended: what is left is a line.
function M.flush()
  local text = rest
  rest = ""
  if text ~= "" then
    native.log(INFO, text)
  end
end

return M
