--- What was typed so far: is it whole, and is it Lua or a command?

local M = {}

--- Can the text be run, or does it go on? A text that is wrong counts as whole: the node says what
--- is wrong with it.
---@param text string
---@return boolean
function M.is_whole(text)
  for _, start in ipairs { "return ", "" } do
    local chunk, problem = load(start .. text, "=repl", "t")
    if chunk then return true end
    -- A string in quotes ends with its line.
    if problem:find("'<eof>'$") and not problem:find("unfinished string", 1, true) then
      return false
    end
  end
  return true
end

--- A line such as `:on n2`: the command's name and the rest, without the space around it. Nil for
--- Lua (`::label::` is some).
---@param line string
---@return string? name
---@return string? rest
function M.command(line)
  return line:match("^%s*:(%a[%w_-]*)%s*(.-)%s*$")
end

--- Is there nothing to run in it?
---@param text string
---@return boolean
function M.is_blank(text) return not text:find("%S") end

return M
