--- Text on a terminal: how wide it is, padding and cutting, cleaning, colours.

local M = {}

-- Ranges of code points that take no column (combining marks, joiners) and two columns (East Asian
-- wide forms, emoji). Coarse on purpose: enough to keep tables straight.
local ZERO = {
  { 0x0300, 0x036f }, { 0x0483, 0x0489 }, { 0x0591, 0x05bd }, { 0x0610, 0x061a },
  { 0x064b, 0x065f }, { 0x0900, 0x0902 }, { 0x093c, 0x093c }, { 0x0e31, 0x0e31 },
  { 0x0e34, 0x0e3a }, { 0x200b, 0x200f }, { 0x20d0, 0x20f0 }, { 0xfe00, 0xfe0f },
  { 0xfe20, 0xfe2f }, { 0xfeff, 0xfeff }, { 0xe0100, 0xe01ef },
}
local WIDE = {
  { 0x1100, 0x115f }, { 0x231a, 0x231b }, { 0x2329, 0x232a }, { 0x23e9, 0x23ec },
  { 0x2e80, 0x303e }, { 0x3041, 0x33ff }, { 0x3400, 0x4dbf }, { 0x4e00, 0x9fff },
  { 0xa000, 0xa4cf }, { 0xac00, 0xd7a3 }, { 0xf900, 0xfaff }, { 0xfe30, 0xfe6f },
  { 0xff00, 0xff60 }, { 0xffe0, 0xffe6 }, { 0x1f300, 0x1f64f }, { 0x1f680, 0x1f6ff },
  { 0x1f900, 0x1f9ff }, { 0x20000, 0x3fffd },
}

-- One UTF-8 character, or one byte of something else.
local CHARACTER = "[%z\1-\127\194-\244][\128-\191]*"

local function is_in(ranges, code)
  for i = 1, #ranges do
    if code < ranges[i][1] then return false end
    if code <= ranges[i][2] then return true end
  end
  return false
end

local function code_of(character)
  local a, b, c, d = character:byte(1, 4)
  if d then return (a - 0xf0) * 0x40000 + (b - 0x80) * 0x1000 + (c - 0x80) * 0x40 + d - 0x80 end
  if c then return (a - 0xe0) * 0x1000 + (b - 0x80) * 0x40 + c - 0x80 end
  if b then return (a - 0xc0) * 0x40 + b - 0x80 end
  return a
end

local function character_width(character)
  if #character == 1 then return 1 end
  local code = code_of(character)
  return is_in(ZERO, code) and 0 or is_in(WIDE, code) and 2 or 1
end

--- Columns that a text takes. It must be clean (see `clean`).
---@param s string
---@return number
function M.width(s)
  if not s:find("[\128-\255]") then return #s end
  local width = 0
  for character in s:gmatch(CHARACTER) do width = width + character_width(character) end
  return width
end

--- Cuts a text to so many columns; what was cut ends in an ellipsis.
---@param s string
---@param columns number
---@return string
function M.cut(s, columns)
  if M.width(s) <= columns then return s end
  local out, width = {}, 0
  for character in s:gmatch(CHARACTER) do
    local w = character_width(character)
    if width + w > columns - 1 then break end
    out[#out + 1] = character
    width = width + w
  end
  return columns > 0 and table.concat(out) .. "…" or ""
end

--- Fills a text up to so many columns.
---@param s string
---@param columns number
---@param align? "left"|"right"
---@return string
function M.pad(s, columns, align)
  local space = (" "):rep(columns - M.width(s))
  return align == "right" and space .. s or s .. space
end

local function escape(byte)
  return ("\\x%02x"):format(byte:byte())
end

--- Is it valid UTF-8?
---@param s string
---@return boolean
function M.is_utf8(s)
  if not s:find("[\128-\255]") then return true end
  local i = 1
  while i <= #s do
    local a = s:byte(i)
    local n = a < 0x80 and 0 or a >= 0xc2 and a < 0xe0 and 1 or a >= 0xe0 and a < 0xf0 and 2
      or a >= 0xf0 and a < 0xf5 and 3
    if not n then return false end
    local tail = s:sub(i + 1, i + n)
    if #tail < n or tail:find("[^\128-\191]") then return false end
    local b = tail:byte(1)
    if (a == 0xe0 and b < 0xa0) or (a == 0xed and b > 0x9f) or (a == 0xf0 and b < 0x90)
      or (a == 0xf4 and b > 0x8f) then
      return false
    end
    i = i + 1 + n
  end
  return true
end

--- Breaks a line at spaces into lines of at most so many columns; a word that is wider stays whole.
---@param s string
---@param columns? number  without it the line stays as it is
---@return string[]
function M.wrap(s, columns)
  if not columns or M.width(s) <= columns then return { s } end
  local lines, line, width = {}, {}, 0
  for word in s:gmatch("%S+") do
    local w = M.width(word)
    if #line > 0 and width + 1 + w > columns then
      lines[#lines + 1] = table.concat(line, " ")
      line, width = {}, 0
    end
    width = width + w + (#line > 0 and 1 or 0)
    line[#line + 1] = word
  end
  lines[#lines + 1] = table.concat(line, " ")
  return lines
end

--- Text from elsewhere, safe to print on a terminal: control characters and what is no UTF-8 are
--- escaped. Line ends stay with `keep_lines`.
---@param s any
---@param keep_lines? boolean
---@return string
function M.clean(s, keep_lines)
  s = tostring(s)
  if not M.is_utf8(s) then s = s:gsub("[\128-\255]", escape) end
  -- C1 controls are two bytes in UTF-8.
  s = s:gsub("\194[\128-\159]", function(c) return ("\\x%02x"):format(c:byte(2)) end)
  return (s:gsub(keep_lines and "[%z\1-\9\11-\31\127]" or "[%z\1-\31\127]", function(c)
    if c == "\n" then return "\\n" elseif c == "\t" then return keep_lines and c or "\\t" end
    return escape(c)
  end))
end

local COLORS = {
  bold = "1", dim = "2", red = "31", green = "32", yellow = "33", blue = "34", cyan = "36",
  ["bold red"] = "1;31", ["bold green"] = "1;32",
}

--- A painter: `paint(style, text)`; without colours it gives the text alone.
---@param has_color boolean
---@return fun(style: string, text: string): string
function M.painter(has_color)
  if not has_color then return function(_, text) return text end end
  return function(style, text)
    return text == "" and text or ("\27[%sm%s\27[0m"):format(COLORS[style], text)
  end
end

--- A duration in milliseconds, for people: `0.4 ms`, `45.2 ms`, `12.3 s`, `4 m 05 s`.
---@param ms number
---@return string
function M.duration(ms)
  if ms < 9999.95 then return ("%.1f ms"):format(ms) end
  if ms < 59950 then return ("%.1f s"):format(ms / 1000) end
  local seconds = math.floor(ms / 1000 + 0.5)
  if seconds < 3600 then return ("%d m %02d s"):format(seconds / 60, seconds % 60) end
  return ("%d h %02d m"):format(seconds / 3600, seconds % 3600 / 60)
end

--- A number of bytes, for people: `812 B`, `64.0 KiB`.
---@param bytes number
---@return string
function M.bytes(bytes)
  if bytes < 1024 then return ("%d B"):format(bytes) end
  for _, unit in ipairs { "KiB", "MiB", "GiB" } do
    bytes = bytes / 1024
    if bytes < 1024 or unit == "GiB" then return ("%.1f %s"):format(bytes, unit) end
  end
end

--- A count with its noun: `1 step`, `4 steps`.
---@param n number
---@param noun string
---@return string
function M.count(n, noun)
  return ("%d %s%s"):format(n, noun, n == 1 and "" or "s")
end

--- Names in a row, at most `max` of them: `a, b, … (+5)`.
---@param names string[]
---@param max number
---@param separator? string
---@return string
function M.names(names, max, separator)
  separator = separator or ", "
  if #names <= max then return table.concat(names, separator) end
  return table.concat(names, separator, 1, max) .. separator .. ("… (+%d)"):format(#names - max)
end

--- The same, shorter: `a, b, c, +5`.
---@param names string[]
---@param max number
---@return string
function M.few(names, max)
  if #names <= max then return table.concat(names, ", ") end
  return table.concat(names, ", ", 1, max) .. (", +%d"):format(#names - max)
end

return M
