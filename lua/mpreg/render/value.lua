--- Lua values as Lua text, for people: any value, within limits on depth, width and length.
---
--- None of the value's code runs: tables are read with `next` and `rawget`, and nothing is called
--- that heeds metamethods (`tostring` of a table or of userdata, `<` between tables). What is data
--- and was not cut loads back, where `math` and `mpreg` are in reach.
---
--- The time it takes is bounded as well, whatever the value: of a huge table only some entries are
--- looked at, then what is left out is not counted to the end. Tables that are in several places
--- are written in each, so there is a limit on the whole text too.

local ffi = require "ffi"
local text = require "mpreg.render.text"

local M = {}

local DEPTH = 6
local DEPTH_MAX = 200 -- what the parser takes; rendering recurses so deep
local ITEMS = 100
local BYTES = 4096
local COLUMNS = 80
local TOTAL = 256 * 1024
-- Entries looked at to sort and count them, in one table and in all; more if `items` wants more.
local LOOKS_PER_TABLE = 10000
local LOOKS = 100000

--- The words of Lua, which are no names.
---@type table<string, true>
M.KEYWORDS = {}
for word in ("and break do else elseif end false for function goto if in local nil not or repeat "
  .. "return then true until while"):gmatch("%S+") do
  M.KEYWORDS[word] = true
end

-- Where Lua knows __len of tables, `#` would call it; there rawlen exists.
local raw_length = rawget(_G, "rawlen") or function(t) return #t end

--- May it stand after a dot?
---@param s any
---@return boolean
function M.is_name(s)
  return type(s) == "string" and s:find("^[%a_][%w_]*$") ~= nil and not M.KEYWORDS[s]
end

-- --- scalars ---

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escape(bytes)
  return ESCAPES[bytes] or (bytes:gsub(".", function(c) return ("\\x%02x"):format(c:byte()) end))
end

--- In quotes, with escapes that Lua reads: safe on a terminal, also if it is no text.
local function quote(s)
  s = s:gsub('[%c"\\]', escape)
  if s:find("[\128-\255]") then
    -- C1 controls are two bytes in UTF-8.
    s = s:gsub(text.is_utf8(s) and "\194[\128-\159]" or "[\128-\255]", escape)
  end
  return '"' .. s .. '"'
end

--- So many bytes of it, and no part of a character.
local function head(s, bytes)
  if #s <= bytes then return s end
  for n = bytes, math.max(bytes - 3, 0), -1 do
    local following = s:byte(n + 1)
    if following < 0x80 or following >= 0xc0 then return s:sub(1, n) end
  end
  return s:sub(1, bytes)
end

local function number_text(value)
  if value ~= value then return "0/0" end
  if value == math.huge then return "math.huge" end
  if value == -math.huge then return "-math.huge" end
  if value % 1 == 0 and math.abs(value) < 2 ^ 53 then return ("%.0f"):format(value) end
  for digits = 15, 17 do
    local s = ("%%.%dg"):format(digits):format(value)
    if tonumber(s) == value then return s end
  end
end

local function function_text(value)
  local info = debug.getinfo(value, "S")
  if info.what == "C" then return "function: builtin" end
  return ("function: %s:%d"):format(text.clean(info.short_src), info.linedefined)
end

--- LuaJIT's own text only where no metatype can have changed it; else that of its type.
local function cdata_text(value)
  if ffi.istype("int64_t", value) or ffi.istype("uint64_t", value) then return tostring(value) end
  return (tostring(ffi.typeof(value)):gsub("^ctype", "cdata"))
end

local function userdata_text(value)
  if ("%p"):format(value) == "NULL" then return "mpreg.null" end
  local kind = io.type(value)
  return kind and "userdata: " .. kind or "userdata"
end

--- The style and the text of what is no table; what is said behind it if it was cut.
local function scalar(value, ctx)
  local kind = type(value)
  if kind == "string" then
    local shown = head(value, ctx.bytes)
    local left = #value - #shown
    return "green", quote(shown), left > 0 and ("… (+%d bytes)"):format(left) or nil
  elseif kind == "number" then
    return "cyan", number_text(value)
  elseif kind == "boolean" then
    return "yellow", value and "true" or "false"
  elseif kind == "nil" then
    return "yellow", "nil"
  elseif kind == "cdata" then
    return "cyan", cdata_text(value)
  elseif kind == "userdata" then
    return "yellow", userdata_text(value)
  elseif kind == "function" then
    return "yellow", function_text(value)
  elseif kind == "thread" then
    return "yellow", "thread: " .. coroutine.status(value)
  end
  return "yellow", kind
end

--- The name that the caller has for it.
local function name_of(value, ctx)
  local name = ctx.names and value ~= nil and rawget(ctx.names, value)
  return name and text.clean(name)
end

local function key_text(key, ctx)
  if M.is_name(key) and #key <= ctx.bytes then return key end
  local name = type(key) ~= "string" and name_of(key, ctx)
  if name then return "[" .. name .. "]" end
  if type(key) == "table" then return "[{…}]" end
  local _, shown, cut = scalar(key, ctx)
  return "[" .. shown .. (cut and " " .. cut or "") .. "]"
end

-- --- tables ---

--- The length of the list at its beginning, counted up to `max`.
local function list_length(t, max)
  local n = 0
  while n < max and rawget(t, n + 1) ~= nil do n = n + 1 end
  return n
end

--- Numbers, strings, others, each in order.
local function in_order(numbers, strings, others, ctx)
  table.sort(numbers)
  table.sort(strings)
  local texts = {}
  for _, key in ipairs(others) do texts[key] = key_text(key, ctx) end
  table.sort(others, function(a, b) return texts[a] < texts[b] end)
  for _, list in ipairs { strings, others } do
    for _, key in ipairs(list) do numbers[#numbers + 1] = key end
  end
  return numbers
end

--- The keys beside 1…listed, in order, how many keys there are, and whether these are all. With
--- `is_full` they are only counted.
local function look(t, listed, is_full, ctx)
  local numbers, strings, others = {}, {}, {}
  local count, max = 0, math.min(ctx.looks_per_table, ctx.looks)
  local key = next(t)
  while key ~= nil and count < max do
    count = count + 1
    if not is_full then
      local kind = type(key)
      local into = kind == "number" and numbers or kind == "string" and strings or others
      local is_listed = kind == "number" and key >= 1 and key <= listed and key % 1 == 0
      if not is_listed then into[#into + 1] = key end
    end
    key = next(t, key)
  end
  ctx.looks = ctx.looks - count
  local is_all = key == nil
  if not is_all then count = math.max(count, listed, raw_length(t)) end
  return in_order(numbers, strings, others, ctx), count, is_all
end

local render

--- What stands between the braces: `{ text, width?, is_flat?, is_cut? }` each. The width is missing
--- if there are several lines; flat ones may share a line.
local function entries(t, ctx, depth)
  local parts = {}
  local used = 2 * (depth + 1) + #","
  local listed = list_length(t, ctx.items)
  local keys, count, is_all = look(t, listed, listed == ctx.items, ctx)
  for i = 1, listed do
    if ctx.left <= 0 then break end
    local item = rawget(t, i)
    local shown, width = render(item, ctx, depth + 1, used)
    local kind = type(item)
    parts[i] = { text = shown, width = width, is_flat = kind ~= "table" and kind ~= "string" }
  end
  for i = 1, math.min(#keys, ctx.items - listed) do
    if ctx.left <= 0 then break end
    local key = key_text(keys[i], ctx)
    local before = text.width(key) + #" = "
    ctx.left = ctx.left - #key
    local shown, width = render(rawget(t, keys[i]), ctx, depth + 1, used + before)
    parts[#parts + 1] = { text = ctx.paint("blue", key) .. " = " .. shown,
      width = width and width + before }
  end
  local left = count - #parts
  if left > 0 or not is_all then
    local shown = left == 0 and "…" or ("… (+%d%s)"):format(left, is_all and "" or " or more")
    parts[#parts + 1] = { text = ctx.paint("dim", shown), width = text.width(shown), is_cut = true }
  end
  return parts
end

local function on_one_line(parts, columns)
  local texts, width = {}, #"{ " + #" }" - #", "
  for i, part in ipairs(parts) do
    if not part.width then return nil end
    width = width + part.width + #", "
    if width > columns then return nil end
    texts[i] = part.text
  end
  return "{ " .. table.concat(texts, ", ") .. " }", width
end

local function on_several_lines(parts, columns, depth)
  local out, indent = { "{" }, "\n" .. ("  "):rep(depth + 1)
  local at = nil -- the column behind what is flat on the line in hand
  for _, part in ipairs(parts) do
    local goes_on = at and part.is_flat and at + #" " + part.width + #"," <= columns
    out[#out + 1] = goes_on and " " or indent
    out[#out + 1] = part.text
    if not part.is_cut then out[#out + 1] = "," end
    at = part.is_flat and (goes_on and at + 1 or 2 * (depth + 1)) + part.width + 1
  end
  out[#out + 1] = "\n" .. ("  "):rep(depth) .. "}"
  return table.concat(out)
end

local function mark_of(t)
  local metatable = debug.getmetatable(t)
  return metatable and (rawget(metatable, "__name") or "")
end

--- What is said behind the entries: that there is more to it, unless the mark is one of ours.
local function remark(t)
  local mark = mark_of(t)
  return mark and mark ~= "mpreg.array" and mark ~= "mpreg.bytes" and "<metatable>" or nil
end

--- Style, text and remark of a table whose entries are not written; nothing if they are.
local function closed_table(t, ctx, depth)
  local mark = mark_of(t)
  if mark == "mpreg.bytes" and type(rawget(t, 1)) == "string" then
    local style, shown, cut = scalar(rawget(t, 1), ctx)
    return style, "mpreg.bytes " .. shown, cut
  end
  if next(t) == nil then
    return "plain", mark == "mpreg.array" and "mpreg.array {}" or "{}", remark(t)
  end
  if ctx.open[t] then return "dim", "<cycle>" end
  if depth >= ctx.depth or ctx.looks <= 0 then return "dim", "{…}" end
end

--- The same for all values.
local function closed(value, ctx, depth)
  local name = type(value) ~= "string" and name_of(value, ctx)
  if name then return "yellow", name end
  if type(value) == "table" then return closed_table(value, ctx, depth) end
  return scalar(value, ctx)
end

--- `used` columns of its line are taken by others. Gives the width too, unless there are several
--- lines. Depth is bounded by `ctx.depth`.
function render(value, ctx, depth, used)
  local style, shown, said = closed(value, ctx, depth)
  local width
  if style then
    ctx.left = ctx.left - #shown - 2 * depth - #", "
    width = text.width(shown)
    if style ~= "plain" then shown = ctx.paint(style, shown) end
  else
    ctx.open[value] = true
    local parts = entries(value, ctx, depth)
    ctx.open[value] = nil
    said = remark(value)
    shown, width = on_one_line(parts, ctx.columns - used - (said and #said + 1 or 0))
    if not width then shown = on_several_lines(parts, ctx.columns, depth) end
  end
  if said then
    shown = shown .. " " .. ctx.paint("dim", said)
    width = width and width + 1 + text.width(said)
  end
  return shown, width
end

---@class mpreg.render.ValueOptions
---@field depth? number  of tables in tables that are shown, at most 200; 6
---@field items? number  of one table; 100
---@field bytes? number  of one string; 4,096
---@field columns? number  that a line should not pass; 80
---@field total? number  bytes after which everything is cut, roughly; 262,144
---@field color? boolean
---@field names? table  what values are called: `names[value]` is written instead of the value

--- The text of a value; several lines if it is long.
---@param value any
---@param opts? mpreg.render.ValueOptions
---@return string
function M.text(value, opts)
  opts = opts or {}
  local items = opts.items or ITEMS
  return (render(value, {
    depth = math.min(opts.depth or DEPTH, DEPTH_MAX), items = items, bytes = opts.bytes or BYTES,
    columns = opts.columns or COLUMNS, left = opts.total or TOTAL, names = opts.names,
    paint = text.painter(opts.color), open = {},
    looks = math.max(LOOKS, items), looks_per_table = math.max(LOOKS_PER_TABLE, items),
  }, 0, 0))
end

return M
