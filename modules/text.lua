--- Texts: cutting, joining, replacing, filling in. Nothing here takes a Lua pattern: what is
--- searched for is meant literally. Positions and lengths count characters of UTF-8; a byte that
--- is no part of one counts as a character. Upper and lower case change the letters A to Z only.

local text = { _VERSION = "1.0.0" }

local BYTES_MAX = 64 * 1024 * 1024      -- of what padding makes
local CHARACTER = "[%z\1-\127\194-\244][\128-\191]*"

local function invalid(message, ...)
  error({ code = "INVALID_ARGUMENT", message = message:format(...) }, 0)
end

local function name_of(value)
  return type(value) == "userdata" and "null" or type(value)
end

local function check_text(fun, s, what)
  if type(s) ~= "string" then
    invalid("text.%s: %s must be a string, not %s", fun, what or "the text", name_of(s))
  end
end

local function check_count(fun, n, what)
  if type(n) ~= "number" or n % 1 ~= 0 or n < 0 then
    invalid("text.%s: %s must be a whole number from 0", fun, what)
  end
end

local function check_part(fun, s, what)
  check_text(fun, s, what)
  if s == "" then invalid("text.%s: %s must not be empty", fun, what) end
end

-- Where each character begins, and one past the end.
local function starts_of(s)
  local starts, at = {}, 1
  while at <= #s do
    starts[#starts + 1] = at
    local first, last = s:find(CHARACTER, at)
    -- Stray bytes stand alone, and a character takes no more than its first byte announces.
    if first ~= at then
      at = at + 1
    else
      local lead = s:byte(at)
      local most = lead < 128 and 1 or lead < 224 and 2 or lead < 240 and 3 or 4
      at = math.min(last, at + most - 1) + 1
    end
  end
  starts[#starts + 1] = #s + 1
  return starts
end

local function length_of(s)
  if not s:find("[\128-\255]") then return #s end
  return #starts_of(s) - 1
end

--- Number of characters.
---@param s string
---@return integer
function text.length(s)
  check_text("length", s)
  return length_of(s)
end

--- The characters, each a string.
---@param s string
---@return string[]
function text.characters(s)
  check_text("characters", s)
  local starts, list = starts_of(s), {}
  for i = 1, #starts - 1 do list[i] = s:sub(starts[i], starts[i + 1] - 1) end
  return list
end

--- The characters from `first` to `last`; negative places count from the end.
---@param s string
---@param first integer
---@param last? integer  to the end if left out
---@return string
function text.slice(s, first, last)
  check_text("slice", s)
  last = last == nil and -1 or last
  for name, place in pairs { first = first or false, last = last } do
    if type(place) ~= "number" or place % 1 ~= 0 then
      invalid("text.slice: %s must be a whole number", name)
    end
  end
  local starts = starts_of(s)
  local n = #starts - 1
  if first < 0 then first = n + 1 + first end
  if last < 0 then last = n + 1 + last end
  first, last = math.max(first, 1), math.min(last, n)
  if first > last then return "" end
  return s:sub(starts[first], starts[last + 1] - 1)
end

--- The pieces between separators. Of an empty text it is one empty piece.
---@param s string
---@param separator string  literal, not empty
---@param most? integer  pieces at most; the last one keeps what separators remain
---@return string[]
function text.split(s, separator, most)
  check_text("split", s)
  check_part("split", separator, "the separator")
  if most ~= nil then
    check_count("split", most, "most")
    if most == 0 then invalid("text.split: most must be at least 1") end
  end
  local pieces, at = {}, 1
  while not most or #pieces < most - 1 do
    local first, last = s:find(separator, at, true)
    if not first then break end
    pieces[#pieces + 1] = s:sub(at, first - 1)
    at = last + 1
  end
  pieces[#pieces + 1] = s:sub(at)
  return pieces
end

local function as_text(fun, value, what)
  if type(value) == "string" then return value end
  if type(value) == "boolean" then return tostring(value) end
  if type(value) == "cdata" then return (tostring(value):gsub("U?LL$", "")) end
  if type(value) == "number" then
    if value % 1 == 0 and math.abs(value) < 2 ^ 53 then return ("%d"):format(value) end
    for digits = 15, 17 do
      local shown = ("%." .. digits .. "g"):format(value)
      if tonumber(shown) == value or digits == 17 then return shown end
    end
  end
  invalid("text.%s: %s must be a string, number or boolean, not %s", fun, what, name_of(value))
end

--- Strings, numbers and booleans put together, with a separator between them.
---@param list any[]
---@param separator? string  nothing if left out
---@return string
function text.join(list, separator)
  if type(list) ~= "table" or #list == 0 and next(list) ~= nil then
    invalid("text.join: the first argument must be a list, not %s",
      type(list) == "table" and "a map" or name_of(list))
  end
  separator = separator == nil and "" or separator
  check_text("join", separator, "the separator")
  local parts = {}
  for i = 1, #list do parts[i] = as_text("join", list[i], ("element %d"):format(i)) end
  return table.concat(parts, separator)
end

--- The text without white space at its ends.
---@param s string
---@return string
function text.trim(s)
  check_text("trim", s)
  -- The greedy part is tried once, from the first character that is no space.
  local from = s:match("^%s*()")
  return from > #s and "" or s:match(".*%S", from)
end

--- The text without white space at its start.
---@param s string
---@return string
function text.trim_start(s)
  check_text("trim_start", s)
  return s:sub(s:match("^%s*()"))
end

--- The text without white space at its end.
---@param s string
---@return string
function text.trim_end(s)
  check_text("trim_end", s)
  return s:match(".*%S") or ""
end

--- What stands between white space.
---@param s string
---@return string[]
function text.words(s)
  check_text("words", s)
  local list = {}
  for word in s:gmatch("%S+") do list[#list + 1] = word end
  return list
end

--- The lines, without what ends them (LF, CR LF or CR). A line end at the very end begins no
--- further line; an empty text has no line.
---@param s string
---@return string[]
function text.lines(s)
  check_text("lines", s)
  local list, at = {}, 1
  while at <= #s do
    local stop = s:find("[\r\n]", at) or #s + 1
    list[#list + 1] = s:sub(at, stop - 1)
    at = stop + (s:sub(stop, stop + 1) == "\r\n" and 2 or 1)
  end
  return list
end

--- The text with one part replaced by another wherever it stands, from left to right.
---@param s string
---@param old string  literal, not empty
---@param new string  literal
---@param most? integer  replacements at most; all if left out
---@return string
function text.replace(s, old, new, most)
  check_text("replace", s)
  check_part("replace", old, "what is replaced")
  check_text("replace", new, "the replacement")
  if most ~= nil then check_count("replace", most, "most") end
  local parts, at, done = {}, 1, 0
  while not most or done < most do
    local first, last = s:find(old, at, true)
    if not first then break end
    parts[#parts + 1] = s:sub(at, first - 1)
    parts[#parts + 1] = new
    at, done = last + 1, done + 1
  end
  parts[#parts + 1] = s:sub(at)
  return table.concat(parts)
end

--- Whether a part stands anywhere in the text.
---@param s string
---@param part string  literal
---@return boolean
function text.contains(s, part)
  check_text("contains", s)
  check_text("contains", part, "the part")
  return s:find(part, 1, true) ~= nil
end

--- How often a part stands in the text, without overlaps.
---@param s string
---@param part string  literal, not empty
---@return integer
function text.count(s, part)
  check_text("count", s)
  check_part("count", part, "the part")
  local n, at = 0, 1
  while true do
    local _, last = s:find(part, at, true)
    if not last then return n end
    n, at = n + 1, last + 1
  end
end

--- Whether the text begins with a part.
---@param s string
---@param part string
---@return boolean
function text.starts_with(s, part)
  check_text("starts_with", s)
  check_text("starts_with", part, "the part")
  return s:sub(1, #part) == part
end

--- Whether the text ends with a part.
---@param s string
---@param part string
---@return boolean
function text.ends_with(s, part)
  check_text("ends_with", s)
  check_text("ends_with", part, "the part")
  return #part <= #s and s:sub(#s - #part + 1) == part
end

--- Lower case.
---@param s string
---@return string
function text.lower(s)
  check_text("lower", s)
  return s:lower()
end

--- Upper case.
---@param s string
---@return string
function text.upper(s)
  check_text("upper", s)
  return s:upper()
end

--- The text with its first letter in upper case.
---@param s string
---@return string
function text.capitalize(s)
  check_text("capitalize", s)
  return s:sub(1, 1):upper() .. s:sub(2)
end

--- The text with the first letter of each word in upper case.
---@param s string
---@return string
function text.title(s)
  check_text("title", s)
  return (s:gsub("^%a", string.upper):gsub("%s%a", string.upper))
end

-- The words of a name: "fooBarID2 baz-qux" → foo bar id2 baz qux.
local function parts_of(s)
  s = s:gsub("(%l)(%u)", "%1 %2"):gsub("(%d)(%u%l)", "%1 %2"):gsub("(%u)(%u%l)", "%1 %2")
  local parts = {}
  for part in s:gmatch("[%w\128-\255]+") do parts[#parts + 1] = part:lower() end
  return parts
end

--- The text as a name with underscores: "Foo barBaz" is foo_bar_baz.
---@param s string
---@return string
function text.snake_case(s)
  check_text("snake_case", s)
  return table.concat(parts_of(s), "_")
end

--- The text as a name with hyphens, fit for an address: "Foo barBaz!" is foo-bar-baz.
---@param s string
---@return string
function text.kebab_case(s)
  check_text("kebab_case", s)
  return table.concat(parts_of(s), "-")
end

--- The text as a name with capitals inside: "foo bar-baz" is fooBarBaz.
---@param s string
---@return string
function text.camel_case(s)
  check_text("camel_case", s)
  local parts = parts_of(s)
  for i = 2, #parts do parts[i] = parts[i]:sub(1, 1):upper() .. parts[i]:sub(2) end
  return table.concat(parts)
end

local function padding(fun, s, width, fill)
  check_text(fun, s)
  check_count(fun, width, "the width")
  fill = fill == nil and " " or fill
  check_text(fun, fill, "the filling")
  if length_of(fill) ~= 1 then invalid("text.%s: the filling must be one character", fun) end
  local missing = math.max(0, width - length_of(s))
  if missing * #fill > BYTES_MAX then invalid("text.%s: the width is too large", fun) end
  return fill:rep(missing)
end

--- The text flush right in `width` characters.
---@param s string
---@param width integer
---@param fill? string  one character; a space if left out
---@return string
function text.pad_left(s, width, fill)
  return padding("pad_left", s, width, fill) .. s
end

--- The text flush left in `width` characters.
---@param s string
---@param width integer
---@param fill? string  one character; a space if left out
---@return string
function text.pad_right(s, width, fill)
  return s .. padding("pad_right", s, width, fill)
end

--- The text cut to `width` characters; where it was cut, it ends with a mark.
---@param s string
---@param width integer
---@param mark? string  "…" if left out
---@return string
function text.truncate(s, width, mark)
  check_text("truncate", s)
  check_count("truncate", width, "the width")
  mark = mark == nil and "…" or mark
  check_text("truncate", mark, "the mark")
  if length_of(s) <= width then return s end
  local room = width - length_of(mark)
  if room < 0 then return text.slice(mark, 1, width) end
  return (room > 0 and text.slice(s, 1, room) or "") .. mark
end

local function look_up(values, path)
  local value = values[path]
  if value ~= nil then return value end
  value = values
  for key in path:gmatch("[^.]+") do
    if type(value) ~= "table" then return nil end
    local found = value[key]
    if found == nil and tonumber(key) then found = value[tonumber(key)] end
    value = found
  end
  return value
end

--- Fills in a template: `{name}` stands for the value of that name, `{a.b}` for one further inside,
--- `{rows.1}` for an element of a list; `{{` and `}}` are braces. A name that has no value is an
--- error.
---@param template string
---@param values table
---@return string
function text.template(template, values)
  check_text("template", template, "the template")
  if type(values) ~= "table" then
    invalid("text.template: the values must be a map, not %s", name_of(values))
  end
  local parts, at = {}, 1
  while true do
    local brace = template:find("[{}]", at)
    parts[#parts + 1] = template:sub(at, (brace or 0) - 1)
    if not brace then return table.concat(parts) end
    local sign = template:sub(brace, brace)
    if template:sub(brace + 1, brace + 1) == sign then
      parts[#parts + 1] = sign
      at = brace + 2
    else
      local path, stop = template:match("^{([^{}]+)}()", brace)
      if not path then
        invalid("text.template: a single %s at byte %d (write %s for a brace)", sign, brace,
          sign .. sign)
      end
      path = text.trim(path)
      local value = look_up(values, path)
      if value == nil then invalid("text.template: there is no value for {%s}", path) end
      parts[#parts + 1] = as_text("template", value, ("{%s}"):format(path))
      at = stop
    end
  end
end

text._mpreg = {}
for name, fun in pairs(text) do
  if type(fun) == "function" then text._mpreg[name] = { idempotent = true } end
end

return text
