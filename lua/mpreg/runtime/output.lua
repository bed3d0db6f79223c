--- What functions print: whole lines go to the log, the rest waits for the end of its line, or of
--- the call.

local native = require "mpreg.worker"

local M = {}

local INFO = 1
local LINE_BYTES_MAX = 8192

--- Unfinished lines, by the call's slot (0: a module that loads).
local rests = {}

--- Logs the lines of a text, and gives what is left.
local function log_lines(text)
  local from = 1
  while from <= #text do
    local at = text:find("\n", from, true)
    local last = (at or #text + 1) - 1
    if last - from >= LINE_BYTES_MAX then
      last = from + LINE_BYTES_MAX - 1
    elseif not at then
      break
    end
    native.log(INFO, text:sub(from, last))
    from = last + (last + 1 == at and 2 or 1)
  end
  return text:sub(from)
end

--- Takes text as a stream does.
---@param text string
function M.write(text)
  local slot = native.take_text()
  local rest = log_lines((rests[slot] or "") .. text)
  rests[slot] = rest ~= "" and rest or nil
end

--- The call ended: what is left is a line.
---@param slot integer
function M.flush(slot)
  local text = rests[slot]
  rests[slot] = nil
  if text then
    native.log(INFO, text)
  end
end

return M
