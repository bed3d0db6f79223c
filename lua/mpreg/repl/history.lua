--- What was typed before, across sessions: a text file, an entry a line. A line end inside an entry
--- is written `\n`, a backslash `\\`.

local M = {}

--- How many entries are kept.
M.ENTRIES_MAX = 5000

--- Where the history is kept: nil without a home.
---@param getenv fun(name: string): string?
---@return string?
function M.path(getenv)
  local state = getenv "XDG_STATE_HOME"
  -- Relative ones are to be passed over, says the specification.
  if state and state:sub(1, 1) == "/" then return state .. "/mpreg/history" end
  local home = getenv "HOME"
  return home and home ~= "" and home .. "/.local/state/mpreg/history" or nil
end

local ESCAPES = { ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\0"] = "\\0" }
local CHARACTERS = { n = "\n", r = "\r", ["0"] = "\0" }

--- An entry as a line of the file.
---@param entry string
---@return string
function M.encode(entry) return (entry:gsub("[\\\n\r%z]", ESCAPES)) .. "\n" end

--- The newest entries of a file's text, the oldest first.
---@param text string
---@return string[] entries
---@return boolean is_cut  there were more of them than are kept
function M.decode(text)
  local entries = {}
  for line in text:gmatch("[^\n]+") do
    entries[#entries + 1] = (line:gsub("\\(.)", function(c) return CHARACTERS[c] or c end))
  end
  local surplus = #entries - M.ENTRIES_MAX
  if surplus <= 0 then return entries, false end
  local kept = {}
  for i = 1, M.ENTRIES_MAX do kept[i] = entries[surplus + i] end
  return kept, true
end

--- The text of a file with these entries.
---@param entries string[]
---@return string
function M.encode_all(entries)
  local lines = {}
  for i = 1, #entries do lines[i] = M.encode(entries[i]) end
  return table.concat(lines)
end

return M
