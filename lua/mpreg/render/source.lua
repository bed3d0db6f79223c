--- Lua source for people to read: coloured on a terminal, and a function's part of it.

local text = require "mpreg.render.text"

local M = {}

local KEYWORDS = {}
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat
    return then true until while]]):gmatch("%S+") do
  KEYWORDS[word] = true
end

--- Where the string or comment that begins with a long bracket at `at` ends; nil if none does.
local function long_end(source, at)
  local level = source:match("^%[(=*)%[", at)
  if not level then return nil end
  local _, last = source:find("]" .. level .. "]", at, true)
  return last or #source
end

local function short_string_end(source, at)
  local quote = source:sub(at, at)
  local i = at + 1
  while i <= #source do
    local c = source:sub(i, i)
    if c == "\\" then
      i = i + 1
    elseif c == quote or c == "\n" then
      return i
    end
    i = i + 1
  end
  return #source
end

--- The token at a place: where it ends, and its style if it has one.
local function token(source, at)
  if source:sub(at, at + 1) == "--" then
    return long_end(source, at + 2) or (source:find("\n", at, true) or #source + 1) - 1, "dim"
  end
  local first = source:sub(at, at)
  if first == "\"" or first == "'" then return short_string_end(source, at), "green" end
  if first == "[" then
    local last = long_end(source, at)
    if last then return last, "green" end
    return at
  end
  local word = source:match("^[%a_][%w_]*", at)
  if word then return at + #word - 1, KEYWORDS[word] and "blue" or nil end
  local number = source:match("^%d[%w.]*", at)
  if number then return at + #number - 1, "cyan" end
  local other = source:match("^[^%w_\"'%[%-]+", at)
  return other and at + #other - 1 or at
end

--- Paints every line of a token for itself, since pagers forget a colour at the end of a line.
local function painted(paint, style, piece)
  return (piece:gsub("[^\n]+", function(line) return paint(style, line) end))
end

--- A source as text; it ends with a newline.
---@param source string
---@param opts? { color?: boolean }
---@return string
function M.text(source, opts)
  -- A terminal obeys nothing in it; its own tabs stay.
  source = text.clean((source:gsub("\r\n", "\n")), true)
  if source:sub(-1) ~= "\n" then source = source .. "\n" end
  if not (opts and opts.color) then return source end
  local paint = text.painter(true)
  local out, at = {}, 1
  while at <= #source do
    local last, style = token(source, at)
    local piece = source:sub(at, last)
    out[#out + 1] = style and painted(paint, style, piece) or piece
    at = last + 1
  end
  return table.concat(out)
end

local function lines_of(source)
  local lines = {}
  for line in (source:gsub("\r\n", "\n"):gsub("\n?$", "\n", 1)):gmatch("(.-)\n") do
    lines[#lines + 1] = line
  end
  return lines
end

--- Does the definition of a function of that name begin on this line?
local function defines(line, name)
  local quoted = name:gsub("%-", "%%-")
  return line:find("function%s+[%w_.]*[.:]" .. quoted .. "%s*%(") ~= nil
    or line:find("function%s+" .. quoted .. "%s*%(") ~= nil
    or line:find("%f[%w_]" .. quoted .. "%s*=%s*function%s*%(") ~= nil
    or line:find("%[%s*[\"']" .. quoted .. "[\"']%s*%]%s*=%s*function%s*%(") ~= nil
end

--- The part of a module's source that defines a function, with the comment above it; nil if it is
--- not found. Nothing runs: the compiler alone says where functions begin and end.
---@param source string
---@param name string  without the module's
---@return string?
function M.of_function(source, name)
  local util = require "jit.util"
  local lines = lines_of(source)
  local chunk = load(source:gsub("^#[^\n]*", ""), "=source", "t", {})
  if not chunk then return nil end
  local i = -1
  while true do
    local ok, inner = pcall(util.funck, chunk, i)
    if not ok or inner == nil then return nil end
    local info = type(inner) == "proto" and util.funcinfo(inner)
    if info and defines(lines[info.linedefined] or "", name) then
      local first = info.linedefined
      while (lines[first - 1] or ""):find("^%s*%-%-") do first = first - 1 end
      return table.concat(lines, "\n", first, info.lastlinedefined) .. "\n"
    end
    i = i - 1
  end
end

return M
