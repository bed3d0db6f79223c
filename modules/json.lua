--- JSON texts ⇄ values, for what functions read and write themselves (files, answers of other
--- services; arguments and results need none of it).
---
--- Nothing is lost on the way: null is `mpreg.null`, an empty list stays a list, integers beyond
--- 2^53 are 64-bit integers as long as they fit, and a number is written with as many digits as
--- it takes to read the same one back.

local mpreg = require "mpreg"

local json = { _VERSION = "1.0.0" }

local DEPTH_MAX = 128
local ARRAY = getmetatable(mpreg.array {})      -- what marks an empty list

local function invalid(message, ...)
  error({ code = "INVALID_ARGUMENT", message = message:format(...) }, 0)
end

local function is_null(value)
  return value == nil or type(value) == "userdata" and value == mpreg.null
end

local function name_of(value)
  return type(value) == "userdata" and is_null(value) and "null" or type(value)
end

-- Reading -----------------------------------------------------------------------------------------

-- The reader keeps its text and walks it with positions; it copies nothing but what it returns.

local function fail_at(text, at, message)
  local before = text:sub(1, math.min(at, #text + 1) - 1)
  local _, breaks = before:gsub("\n", "")
  local column = #before:match("[^\n]*$"):gsub("[\128-\191]", "") + 1
  invalid("json.decode: %s at line %d, column %d", message, breaks + 1, column)
end

local function unexpected(text, at, wanted)
  local found = text:match("^[^\128-\255%c]", at)
  found = found and ("'%s'"):format(found) or at > #text and "the end" or "a stray character"
  fail_at(text, at, ("%s is wanted, not %s,"):format(wanted, found))
end

local ESCAPES = {
  ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

local function utf8_of(code)
  local char = string.char
  if code < 0x80 then return char(code) end
  if code < 0x800 then return char(0xC0 + math.floor(code / 0x40), 0x80 + code % 0x40) end
  if code < 0x10000 then
    return char(0xE0 + math.floor(code / 0x1000), 0x80 + math.floor(code / 0x40) % 0x40,
      0x80 + code % 0x40)
  end
  return char(0xF0 + math.floor(code / 0x40000), 0x80 + math.floor(code / 0x1000) % 0x40,
    0x80 + math.floor(code / 0x40) % 0x40, 0x80 + code % 0x40)
end

-- The text of the escape at `at` (a backslash), and where it ends.
local function read_escape(text, at)
  local kind = text:sub(at + 1, at + 1)
  if ESCAPES[kind] then return ESCAPES[kind], at + 2 end
  local hex = text:match("^u(%x%x%x%x)", at + 1)
  if not hex then fail_at(text, at, "an unknown escape") end
  local code = tonumber(hex, 16)
  if code < 0xD800 or code > 0xDFFF then return utf8_of(code), at + 6 end
  local low = code < 0xDC00 and text:match("^\\u([dD][c-fC-F]%x%x)", at + 6)
  if not low then fail_at(text, at, "half of a surrogate pair") end
  return utf8_of(0x10000 + (code - 0xD800) * 0x400 + tonumber(low, 16) - 0xDC00), at + 12
end

-- The string whose quote is at `at`, and where it ends.
local function read_string(text, at)
  local start, parts = at + 1, nil
  local from = start
  while true do
    local stop = text:find('["\\%c]', from)
    local sign = stop and text:sub(stop, stop)
    if sign == '"' then
      if not parts then return text:sub(start, stop - 1), stop + 1 end
      parts[#parts + 1] = text:sub(from, stop - 1)
      return table.concat(parts), stop + 1
    elseif sign == "\\" then
      parts = parts or {}
      parts[#parts + 1] = text:sub(from, stop - 1)
      parts[#parts + 1], from = read_escape(text, stop)
    elseif sign == "\127" then                  -- a control character that JSON allows
      parts = parts or {}
      parts[#parts + 1] = text:sub(from, stop)
      from = stop + 1
    elseif stop then
      fail_at(text, stop, "a control character in a string")
    else
      fail_at(text, at, "a string that does not end")
    end
  end
end

-- Digits as a 64-bit integer, or nil if they do not fit one.
local function int64_of(digits)
  local negative = digits:sub(1, 1) == "-"
  local plain = digits:gsub("^-", "")
  local limit = negative and "9223372036854775808" or "9223372036854775807"
  if #plain > 19 or #plain == 19 and plain > limit then return nil end
  local value = 0LL
  for digit in plain:gmatch("%d") do value = value * 10 - tonumber(digit) end
  return negative and value or -value
end

local function read_number(text, at)
  local integer = text:match("^-?[1-9]%d*", at) or text:match("^-?0", at)
  if not integer then unexpected(text, at, "a value") end
  local stop = at + #integer
  local fraction = text:match("^%.%d+", stop) or ""
  local exponent = text:match("^[eE][+-]?%d+", stop + #fraction) or ""
  stop = stop + #fraction + #exponent
  if text:find("^[%w.+-]", stop) then fail_at(text, at, "a number that is none") end
  local value = tonumber(integer .. fraction .. exponent)
  if value - value ~= 0 then fail_at(text, at, "a number too large") end
  if fraction == "" and exponent == "" and math.abs(value) >= 2 ^ 53 then
    local exact = int64_of(integer)       -- a double may have rounded to 2^53 itself
    if exact and exact ~= 0x20000000000000LL and exact ~= -0x20000000000000LL then
      value = exact
    end
  end
  return value, stop
end

local LITERALS = { t = { "true", true }, f = { "false", false }, n = { "null", mpreg.null } }

local function skip(text, at)
  return text:find("[^ \t\r\n]", at) or #text + 1
end

local read_value

local function read_list(text, at, depth)
  local list, n = {}, 0
  at = skip(text, at + 1)
  if text:byte(at) == 93 then return mpreg.array(list), at + 1 end        -- ]
  while true do
    n = n + 1
    list[n], at = read_value(text, at, depth)
    at = skip(text, at)
    local sign = text:byte(at)
    if sign == 93 then return list, at + 1 end
    if sign ~= 44 then unexpected(text, at, "',' or ']'") end
    at = skip(text, at + 1)
  end
end

local function read_map(text, at, depth)
  local map = {}
  at = skip(text, at + 1)
  if text:byte(at) == 125 then return map, at + 1 end                    -- }
  while true do
    if text:byte(at) ~= 34 then unexpected(text, at, "a key in quotes") end
    local key_at = at
    local key
    key, at = read_string(text, at)
    at = skip(text, at)
    if text:byte(at) ~= 58 then unexpected(text, at, "':'") end
    if map[key] ~= nil then
      fail_at(text, key_at, ("the key %q for the second time"):format(key))
    end
    map[key], at = read_value(text, skip(text, at + 1), depth)
    at = skip(text, at)
    local sign = text:byte(at)
    if sign == 125 then return map, at + 1 end
    if sign ~= 44 then unexpected(text, at, "',' or '}'") end
    at = skip(text, at + 1)
  end
end

-- The value at `at`, where something stands that is no white space, and where it ends. The depth of
-- recursion is bounded.
function read_value(text, at, depth)
  local sign = text:sub(at, at)
  if sign == '"' then return read_string(text, at) end
  if sign == "{" or sign == "[" then
    if depth >= DEPTH_MAX then fail_at(text, at, ("nesting deeper than %d"):format(DEPTH_MAX)) end
    return (sign == "{" and read_map or read_list)(text, at, depth + 1)
  end
  local literal = LITERALS[sign]
  if literal and text:match("^[%w_]+", at) == literal[1] then
    return literal[2], at + #literal[1]
  end
  return read_number(text, at)
end

--- The value of a JSON text. What is no JSON is an error that says where.
---@param text string
---@return any
function json.decode(text)
  if type(text) ~= "string" then
    invalid("json.decode: the text must be a string, not %s", name_of(text))
  end
  local value, at = read_value(text, skip(text, text:sub(1, 3) == "\239\187\191" and 4 or 1), 0)
  at = skip(text, at)
  if at <= #text then unexpected(text, at, "the end") end
  return value
end

-- Writing -----------------------------------------------------------------------------------------

local SHORT = {
  ['"'] = '\\"', ["\\"] = "\\\\", ["\b"] = "\\b", ["\f"] = "\\f", ["\n"] = "\\n", ["\r"] = "\\r",
  ["\t"] = "\\t",
}

local function escape(character)
  return SHORT[character] or ("\\u%04x"):format(character:byte())
end

-- Whether a text is UTF-8: no overlong forms, no surrogates, nothing above U+10FFFF.
local function is_utf8(text)
  local at = text:find("[\128-\255]")
  while at do
    local stop = text:match("^[\194-\223][\128-\191]()", at)
      or text:match("^\224[\160-\191][\128-\191]()", at)
      or text:match("^[\225-\236\238\239][\128-\191][\128-\191]()", at)
      or text:match("^\237[\128-\159][\128-\191]()", at)
      or text:match("^\240[\144-\191][\128-\191][\128-\191]()", at)
      or text:match("^[\241-\243][\128-\191][\128-\191][\128-\191]()", at)
      or text:match("^\244[\128-\143][\128-\191][\128-\191]()", at)
    if not stop then return false end
    at = text:find("[\128-\255]", stop)
  end
  return true
end

local function quoted(text, path)
  if not is_utf8(text) then invalid("json.encode: %s is a string that is not UTF-8", path) end
  return '"' .. text:gsub('[%z\1-\31"\\]', escape) .. '"'
end

local function number_text(value, path)
  if value - value ~= 0 then invalid("json.encode: %s is %s, which JSON lacks", path, value) end
  if value % 1 == 0 and math.abs(value) <= 2 ^ 53 then return ("%d"):format(value) end
  for digits = 15, 16 do
    local shown = ("%." .. digits .. "g"):format(value)
    if tonumber(shown) == value then return shown end
  end
  return ("%.17g"):format(value)
end

local function path_of(parts)
  local names = { "the value" }
  for i, part in ipairs(parts) do
    names[i + 1] = type(part) == "number" and ("[%d]"):format(part)
      or part:find("^[%a_][%w_]*$") and "." .. part or ("[%q]"):format(part)
  end
  return table.concat(names)
end

-- The map's keys, sorted; nil if it is a list.
local function keys_of(map, writer)
  local keys, n, greatest = {}, 0, 0
  for key in pairs(map) do
    n = n + 1
    if type(key) == "string" then
      keys[#keys + 1] = key
    elseif type(key) == "number" and key >= 1 and key % 1 == 0 then
      greatest = math.max(greatest, key)
    else
      invalid("json.encode: %s has a key that is a %s", path_of(writer.path), type(key))
    end
  end
  if n == 0 then return not (ARRAY and getmetatable(map) == ARRAY) and keys or nil end
  if #keys == 0 and greatest == n then return nil end
  if #keys < n then
    invalid("json.encode: %s is neither a list without holes nor a map", path_of(writer.path))
  end
  table.sort(keys)
  return keys
end

local write

local function line_break(writer)
  if writer.indent then
    writer[#writer + 1] = "\n" .. writer.indent:rep(#writer.path)
  end
end

-- The elements of a list (`keys` is nil) or a map, between brackets.
local function write_table(writer, value, keys)
  local path, n = writer.path, keys and #keys or #value
  writer[#writer + 1] = keys and "{" or "["
  for i = 1, n do
    local key = keys and keys[i] or i
    path[#path + 1] = key
    if i > 1 then writer[#writer + 1] = "," end
    line_break(writer)
    if keys then
      writer[#writer + 1] = quoted(key, "a key") .. (writer.indent and ": " or ":")
    end
    write(writer, value[key])
    path[#path] = nil
  end
  if n > 0 then line_break(writer) end
  writer[#writer + 1] = keys and "}" or "]"
end

-- Appends a value's text. The depth of recursion is bounded, which ends cycles, too.
function write(writer, value)
  local kind = type(value)
  if kind == "string" then
    writer[#writer + 1] = quoted(value, is_utf8(value) and "" or path_of(writer.path))
  elseif kind == "number" then
    writer[#writer + 1] = number_text(value, value - value ~= 0 and path_of(writer.path))
  elseif is_null(value) then
    writer[#writer + 1] = "null"
  elseif kind == "boolean" then
    writer[#writer + 1] = tostring(value)
  elseif kind == "cdata" and tostring(value):find("^-?%d+U?LL$") then
    writer[#writer + 1] = tostring(value):match("^-?%d+")
  elseif kind == "table" and (getmetatable(value) == nil or getmetatable(value) == ARRAY) then
    if #writer.path >= DEPTH_MAX then
      invalid("json.encode: nesting deeper than %d, or a cycle", DEPTH_MAX)
    end
    write_table(writer, value, keys_of(value, writer))
  else
    invalid("json.encode: %s is a %s, which JSON lacks", path_of(writer.path),
      kind == "table" and "table of a kind of its own" or kind)
  end
end

--- The JSON text of a value, its keys sorted, so that equal values have equal texts.
---@param value any
---@param opts? table  { indent = spaces a level }: one line without
---@return string
function json.encode(value, opts)
  opts = is_null(opts) and {} or opts
  if type(opts) ~= "table" then
    invalid("json.encode: the options must be a map, not %s", name_of(opts))
  end
  local indent = opts.indent
  local is_whole = type(indent) == "number" and indent % 1 == 0
  if indent ~= nil and not (is_whole and indent >= 1 and indent <= 16) then
    invalid("json.encode: indent must be a whole number from 1 to 16")
  end
  local writer = { path = {}, indent = indent and (" "):rep(indent) }
  write(writer, value)
  return table.concat(writer)
end

json._mpreg = { encode = { idempotent = true }, decode = { idempotent = true } }

return json
