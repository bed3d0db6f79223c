--- Lua values as Lua text, with limits on depth, width and length.

local text = require "mpreg.render.text"

local M = {}

local DEPTH = 8
local ITEMS = 200
local COLUMNS = 80

local KEYWORDS = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat "
  .. "return then true until while"):gmatch("%S+") do
  KEYWORDS[word] = true
end

local function scalar(value)
  local kind = type(value)
  if kind == "string" then
    return '"' .. text.clean((value:gsub('[\\"]', "\\%0"))) .. '"'
  elseif kind == "number" then
    if value ~= value then return "0/0" end
    if value == math.huge then return "math.huge" end
    if value == -math.huge then return "-math.huge" end
    if value % 1 == 0 and math.abs(value) < 2 ^ 53 then return ("%.0f"):format(value) end
    for digits = 15, 17 do
      local s = ("%%.%dg"):format(digits):format(value)
      if tonumber(s) == value then return s end
    end
  elseif kind == "userdata" then
    return "null"
  elseif kind == "cdata" or kind == "boolean" or kind == "nil" then
    return tostring(value)
  end
  return "<" .. kind .. ">"
end

local function key_text(key)
  if type(key) == "string" and key:find("^[%a_][%w_]*$") and not KEYWORDS[key] then return key end
  return "[" .. scalar(key) .. "]"
end

local function sorted_keys(t, from)
  local keys = {}
  for key in pairs(t) do
    local is_in_list = type(key) == "number" and key >= 1 and key < from and key == math.floor(key)
    if not is_in_list then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return tostring(a) < tostring(b)
  end)
  return keys
end

local render

local function entries(value, opts, depth, seen)
  local out = {}
  local count = #value
  local keys = sorted_keys(value, count + 1)
  for i = 1, math.min(count, opts.items) do
    out[#out + 1] = render(value[i], opts, depth + 1, seen)
  end
  for i = 1, math.min(#keys, math.max(0, opts.items - count)) do
    out[#out + 1] = key_text(keys[i]) .. " = " .. render(value[keys[i]], opts, depth + 1, seen)
  end
  local left = count + #keys - #out
  if left > 0 then out[#out + 1] = ("… (+%d)"):format(left) end
  return out
end

--- Depth is bounded by `opts.depth`.
function render(value, opts, depth, seen)
  if type(value) ~= "table" then return scalar(value) end
  if next(value) == nil then return "{}" end
  if seen[value] then return "{…}" end
  if depth >= opts.depth then return "{…}" end
  seen[value] = true
  local parts = entries(value, opts, depth, seen)
  seen[value] = nil
  local line = "{ " .. table.concat(parts, ", ") .. " }"
  local is_short = text.width(line) + 2 * depth <= opts.columns
  if is_short and not line:find("\n", 1, true) then return line end
  local indent = "\n" .. ("  "):rep(depth + 1)
  return "{" .. indent .. table.concat(parts, "," .. indent) .. ",\n" .. ("  "):rep(depth) .. "}"
end

--- The text of a value; several lines if it is long.
---@param value any
---@param opts? { depth?: number, items?: number, columns?: number }
---@return string
function M.text(value, opts)
  opts = opts or {}
  return render(value, {
    depth = opts.depth or DEPTH, items = opts.items or ITEMS, columns = opts.columns or COLUMNS,
  }, 0, {})
end

return M
