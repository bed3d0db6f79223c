--- CSV texts (RFC 4180) ⇄ rows: commas or other separators, quotes, line ends inside quotes, CR
--- LF or LF.

local null = require("cjson").null

local csv = { _VERSION = "1.0.0" }

local function invalid(message, ...)
  error({ code = "INVALID_ARGUMENT", message = message:format(...) }, 0)
end

local function name_of(value)
  return type(value) == "userdata" and "null" or type(value)
end

local function options_of(fun, opts)
  if opts == nil or type(opts) == "userdata" then opts = {} end
  if type(opts) ~= "table" then
    invalid("csv.%s: the options must be a map, not %s", fun, name_of(opts))
  end
  local separator = opts.separator == nil and "," or opts.separator
  if type(separator) ~= "string" or #separator ~= 1 or separator:find('["\r\n]') then
    invalid("csv.%s: the separator must be one character, and no quote or line end", fun)
  end
  return opts, separator
end

local function check_names(fun, names, what)
  if type(names) ~= "table" or #names == 0 then
    invalid("csv.%s: %s must be a list of names", fun, what)
  end
  local seen = {}
  for i = 1, #names do
    if type(names[i]) ~= "string" then
      invalid("csv.%s: %s[%d] must be a string, not %s", fun, what, i, name_of(names[i]))
    end
    if seen[names[i]] then
      invalid("csv.%s: the column %s stands twice in %s", fun, names[i], what)
    end
    seen[names[i]] = true
  end
  return names
end

-- Reading -----------------------------------------------------------------------------------------

-- The quoted field whose quote is at `at`, where it ends, and how many lines it spans.
local function read_quoted(text, at, line)
  local parts, from, breaks = {}, at + 1, 0
  while true do
    local stop = text:find('"', from, true)
    if not stop then invalid("csv.decode: the quotes opened in line %d do not close", line) end
    local part = text:sub(from, stop - 1)
    parts[#parts + 1] = part
    local _, more = part:gsub("\n", "")
    breaks = breaks + more
    if text:byte(stop + 1) ~= 34 then return table.concat(parts), stop + 1, breaks end
    parts[#parts + 1] = '"'
    from = stop + 2
  end
end

-- Calls `on_record(fields, quoted, line)` for each record; `quoted` says which fields had quotes.
-- Lines without anything on them are passed over.
local function read_records(text, separator, on_record)
  local plain_end = ("[%%%s\r\n]"):format(separator)
  local at, line, size = 1, 1, #text
  if text:sub(1, 3) == "\239\187\191" then at = 4 end
  while at <= size do
    local fields, quoted, n, first_line = {}, {}, 0, line
    local is_open = true
    while is_open do
      n = n + 1
      local breaks
      if text:byte(at) == 34 then
        fields[n], at, breaks = read_quoted(text, at, line)
        quoted[n] = true
        line = line + breaks
      else
        local stop = text:find(plain_end, at) or size + 1
        fields[n] = text:sub(at, stop - 1)
        if fields[n]:find('"', 1, true) then
          invalid("csv.decode: a quote inside a field without quotes in line %d", line)
        end
        at = stop
      end
      local sign = text:sub(at, at)
      is_open = sign == separator
      if not is_open and sign ~= "" and sign ~= "\r" and sign ~= "\n" then
        invalid("csv.decode: something stands behind the closing quote in line %d", line)
      end
      at = at + (text:sub(at, at + 1) == "\r\n" and 2 or 1)
    end
    line = line + 1
    if n > 1 or fields[1] ~= "" or quoted[1] then on_record(fields, quoted, first_line) end
  end
end

-- A number as JSON writes it: neither 007 (a code) nor 0x10, nan or 1e999.
local function number_of(field)
  local digits = field:match("^-?(%d+)%.?%d*[eE]?[+-]?%d*$")
  if not digits or #digits > 1 and digits:sub(1, 1) == "0" then return nil end
  local value = tonumber(field)
  if not value or value - value ~= 0 then return nil end
  -- A longer integer would be rounded: it is more likely a number of some account.
  if math.abs(value) > 2 ^ 53 and field:find("^-?%d+$") then return nil end
  return value
end

local BOOLEANS = { ["true"] = true, ["false"] = false }

-- Type → the field's value, or nil if it is none. Empty fields do not come here.
local READERS = {
  string = function(field) return field end,
  number = number_of,
  integer = function(field)
    local value = number_of(field)
    return value and value % 1 == 0 and value or nil
  end,
  boolean = function(field) return BOOLEANS[field:lower()] end,
}

local function guess(field)
  local value = number_of(field)
  if value == nil then value = BOOLEANS[field] end
  if value == nil then return field end
  return value
end

local function types_of(types)
  if types == nil or types == false or type(types) == "userdata" then return nil end
  if types == true then return {}, true end
  if type(types) ~= "table" then
    invalid("csv.decode: types must be true or a map from column to type, not %s", name_of(types))
  end
  for column, kind in pairs(types) do
    if not READERS[kind] then
      invalid("csv.decode: the type of %s must be string, number, integer or boolean, not %s",
        tostring(column), tostring(kind))
    end
  end
  return types, false
end

-- The field as the value that the options want.
local function value_of(field, is_quoted, column, types, guesses, line)
  local kind = types and types[column]
  if kind then
    if field == "" and not (is_quoted and kind == "string") then return null end
    local value = READERS[kind](field)
    if value == nil then
      invalid("csv.decode: line %d: %s is %q, which is no %s", line, column, field:sub(1, 40), kind)
    end
    return value
  end
  if not guesses or is_quoted then return field end
  if field == "" then return null end
  return guess(field)
end

local function read_header(fields, is_trimmed)
  for i, name in ipairs(fields) do
    if is_trimmed then name = name:match("^%s*(.-)%s*$") end
    fields[i] = name == "" and ("column%d"):format(i) or name
  end
  return check_names("decode", fields, "the header")
end

local function default_names(count)
  local names = {}
  for i = 1, count do names[i] = ("column%d"):format(i) end
  return names
end

--- Rows of a CSV text. The first record names the columns; each further one is a map. Fields are
--- strings unless `types` says otherwise: `true` makes numbers, booleans and nulls of what looks
--- like them and has no quotes (007 and longer integers than a double holds stay strings); a map
--- gives types by column (`string`, `number`, `integer`, `boolean`) and refuses what does not
--- fit.
---
--- Options: `separator` (","), `header` (true; false: columns are column1, column2 …; or a list
--- of names if the text has none), `types`, `trim` (false: takes the spaces around fields without
--- quotes away), `ragged` (false: a record with too few or too many fields is an error; true:
--- missing fields are left out, further ones dropped).
---@param text string
---@param opts? table
---@return table[]
function csv.decode(text, opts)
  if type(text) ~= "string" then
    invalid("csv.decode: the text must be a string, not %s", name_of(text))
  end
  local separator
  opts, separator = options_of("decode", opts)
  local types, guesses = types_of(opts.types)
  local names
  if type(opts.header) == "table" then names = check_names("decode", opts.header, "header") end
  local has_header = opts.header == nil or opts.header == true
  local rows = {}

  read_records(text, separator, function(fields, quoted, line)
    if not names and has_header then
      names = read_header(fields, opts.trim)
      return
    end
    names = names or default_names(#fields)
    if #fields ~= #names and not opts.ragged then
      invalid("csv.decode: line %d has %d fields, not %d", line, #fields, #names)
    end
    local row = {}
    for i = 1, math.min(#fields, #names) do
      local field = fields[i]
      if opts.trim and not quoted[i] then field = field:match("^%s*(.-)%s*$") end
      row[names[i]] = value_of(field, quoted[i], names[i], types, guesses, line)
    end
    rows[#rows + 1] = row
  end)
  return rows
end

-- Writing -----------------------------------------------------------------------------------------

local function number_text(value, place)
  if value - value ~= 0 then invalid("csv.encode: %s is %s, which is no number", place, value) end
  if value % 1 == 0 and math.abs(value) <= 2 ^ 53 then return ("%d"):format(value) end
  for digits = 15, 16 do
    local shown = ("%." .. digits .. "g"):format(value)
    if tonumber(shown) == value then return shown end
  end
  return ("%.17g"):format(value)
end

local function field_text(value, row, column, special)
  local kind = type(value)
  if value == nil or kind == "userdata" then return "" end
  if kind == "number" then return number_text(value, ("rows[%d].%s"):format(row, column)) end
  if kind == "boolean" then return tostring(value) end
  if kind == "cdata" then return (tostring(value):gsub("U?LL$", "")) end
  if kind ~= "string" then
    invalid("csv.encode: rows[%d].%s is a %s, which is no field", row, column, kind)
  end
  -- Quotes tell an empty text from null, and "7" from 7.
  if value == "" or value:find(special) or guess(value) ~= value then
    return '"' .. value:gsub('"', '""') .. '"'
  end
  return value
end

local function columns_of(rows)
  local seen, names = {}, {}
  for i = 1, #rows do
    for name in pairs(rows[i]) do
      if type(name) ~= "string" then
        invalid("csv.encode: rows[%d] must be a map, its keys strings", i)
      end
      if not seen[name] then
        seen[name] = true
        names[#names + 1] = name
      end
    end
  end
  table.sort(names)
  return names
end

--- The CSV text of rows. Null and missing fields are empty; a text that looks like a number or a
--- boolean has quotes, so that `decode` with `types = true` gives the same values back.
---
--- Options: `columns` (all there are, sorted by name), `separator` (","), `header` (true),
--- `newline` ("\r\n", as RFC 4180 has it; or "\n").
---@param rows table[]
---@param opts? table
---@return string
function csv.encode(rows, opts)
  if type(rows) ~= "table" or #rows == 0 and next(rows) ~= nil then
    invalid("csv.encode: rows must be a list, not %s",
      type(rows) == "table" and "a map" or name_of(rows))
  end
  for i = 1, #rows do
    if type(rows[i]) ~= "table" then
      invalid("csv.encode: rows[%d] must be a map, not %s", i, name_of(rows[i]))
    end
  end
  local separator
  opts, separator = options_of("encode", opts)
  local newline = opts.newline == nil and "\r\n" or opts.newline
  if newline ~= "\r\n" and newline ~= "\n" then
    invalid([[csv.encode: newline must be "\r\n" or "\n"]])
  end
  local names = opts.columns and check_names("encode", opts.columns, "columns") or columns_of(rows)
  local special = ('[%%%s"\r\n]'):format(separator)
  local lines = {}
  if opts.header ~= false and #names > 0 then
    local cells = {}
    for c, name in ipairs(names) do cells[c] = field_text(name, 0, name, special) end
    lines[1] = table.concat(cells, separator)
  end
  for i = 1, #rows do
    local cells = {}
    for c, name in ipairs(names) do cells[c] = field_text(rows[i][name], i, name, special) end
    -- One empty field alone would be an empty line, which says nothing.
    if #cells == 1 and cells[1] == "" then cells[1] = '""' end
    lines[#lines + 1] = table.concat(cells, separator)
  end
  return #lines > 0 and table.concat(lines, newline) .. newline or ""
end

csv._mpreg = { decode = { idempotent = true }, encode = { idempotent = true } }

return csv
