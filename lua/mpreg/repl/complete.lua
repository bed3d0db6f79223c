--- What Tab does with the names that a text may go on with: what is inserted, what is listed.

local text = require "mpreg.render.text"

local M = {}

local LISTED_MAX = 200

local function common_prefix(names)
  local prefix = names[1]
  for i = 2, #names do
    local name, length = names[i], 0
    while length < #prefix and prefix:byte(length + 1) == name:byte(length + 1) do
      length = length + 1
    end
    prefix = prefix:sub(1, length)
  end
  -- Not in the middle of a character.
  while prefix ~= "" and not text.is_utf8(prefix) do prefix = prefix:sub(1, -2) end
  return prefix
end

--- Names in columns, read downwards; each line ends with a newline.
---@param names string[]
---@param width number
---@return string
function M.columns(names, width)
  local cells, widest = {}, 0
  for i = 1, math.min(#names, LISTED_MAX) do
    cells[i] = text.clean(names[i])
    widest = math.max(widest, text.width(cells[i]))
  end
  local count = math.max(1, math.floor((width + 1) / (widest + 2)))
  local rows = math.ceil(#cells / count)
  local out = {}
  for row = 1, rows do
    local line = {}
    for i = row, #cells, rows do
      line[#line + 1] = i + rows > #cells and cells[i] or text.pad(cells[i], widest)
    end
    out[row] = table.concat(line, "  ")
  end
  if #names > #cells then out[#out + 1] = ("… (+%d)"):format(#names - #cells) end
  return table.concat(out, "\n") .. "\n"
end

local function distinct(names)
  local list, seen = {}, {}
  for _, name in ipairs(names) do
    -- What cannot be typed is no name.
    if type(name) == "string" and not name:find("%c") and not seen[name] then
      seen[name] = true
      list[#list + 1] = name
    end
  end
  table.sort(list)
  return list
end

--- From byte `from` on, `typed` (which ends at the cursor) may become one of the names: what it
--- becomes, and what is to be listed. Nothing if there is nothing to do.
---@param typed string
---@param from number
---@param names string[]
---@param width number  of the terminal
---@return number? from
---@return string? insert
---@return string? list
function M.plan(typed, from, names, width)
  if from < 1 or from > #typed + 1 then return nil end
  local list = distinct(names)
  if #list == 0 then return nil end
  if #list == 1 then return from, list[1] end
  local word = typed:sub(from)
  local prefix = common_prefix(list)
  if prefix:sub(1, #word) ~= word then prefix = word end
  return from, prefix, M.columns(list, width)
end

--- Those of some words that begin with a text.
---@param words string[]
---@param start string
---@return string[]
function M.beginning(words, start)
  local list = {}
  for _, word in ipairs(words) do
    if word:sub(1, #start) == start then list[#list + 1] = word end
  end
  return list
end

--- The paths that a beginning may become: folders, with a slash behind them, and module files. What
--- begins with a dot is offered to whoever types the dot.
---@param start string
---@param list fun(path: string): { name: string, type: string }[]?
---@param is_folder fun(path: string): boolean
---@return string[]
function M.paths(start, list, is_folder)
  local folder, name = start:match("^(.*/)([^/]*)$")
  folder, name = folder or "", name or start
  local found = {}
  for _, entry in ipairs(list(folder == "" and "." or folder) or {}) do
    local is_hidden = entry.name:sub(1, 1) == "." and name:sub(1, 1) ~= "."
    if entry.name:sub(1, #name) == name and not is_hidden and not entry.name:find("%s") then
      local path = folder .. entry.name
      if is_folder(path) then
        found[#found + 1] = path .. "/"
      elseif entry.name:find("%.lua$") then
        found[#found + 1] = path
      end
    end
  end
  return found
end

return M
