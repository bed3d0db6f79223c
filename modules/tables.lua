--- Rows and lists: what pipelines do between two computations.
---
--- Rows are a list of maps. A field is a key of the row; where the row has no such key, a dotted
--- name is a path into nested maps ("properties.mag"). A field that is missing and one that is
--- null are the same. Arguments are never changed; rows are passed on, not copied, unless their
--- fields change.

local null = require("cjson").null

local tables = { _VERSION = "1.0.0" }

local LENGTH_MAX = 10000000     -- of what `range` makes

local function invalid(message, ...)
  error({ code = "INVALID_ARGUMENT", message = message:format(...) }, 0)
end

local function name_of(value)
  return value == null and "null" or type(value)
end

local function check_list(fun, list, what)
  what = what or "the first argument"
  if type(list) ~= "table" then
    invalid("tables.%s: %s must be a list, not %s", fun, what, name_of(list))
  end
  if #list == 0 and next(list) ~= nil then
    invalid("tables.%s: %s must be a list, not a map", fun, what)
  end
end

local function check_rows(fun, rows, what)
  check_list(fun, rows, what or "rows")
  for i = 1, #rows do
    if type(rows[i]) ~= "table" then
      invalid("tables.%s: %s[%d] must be a map, not %s", fun, what or "rows", i, name_of(rows[i]))
    end
  end
end

local function check_map(fun, map, what)
  if type(map) ~= "table" then
    invalid("tables.%s: %s must be a map, not %s", fun, what, name_of(map))
  end
end

local function check_field(fun, field, what)
  if type(field) ~= "string" then
    invalid("tables.%s: %s must be a field's name, not %s", fun, what or "field", name_of(field))
  end
end

local function check_count(fun, n, least, what)
  if type(n) ~= "number" or n % 1 ~= 0 or least and n < least then
    local from = least and (" from %d"):format(least) or ""
    invalid("tables.%s: %s must be a whole number%s", fun, what or "n", from)
  end
end

-- The field's value, or nil where it is missing or null.
local function value_of(row, field)
  local value = row[field]
  if value == nil and field:find(".", 1, true) then
    value = row
    for key in field:gmatch("[^.]+") do
      if type(value) ~= "table" then return nil end
      value = value[key]
    end
  end
  if value == null then return nil end
  return value
end

-- A value as a map's key: maps that are sent have string keys.
local function key_of(fun, value)
  if value == nil or value == null then return "null" end
  if type(value) == "table" then invalid("tables.%s: a list or map cannot be a key", fun) end
  if type(value) == "number" and value % 1 == 0 and math.abs(value) < 2 ^ 53 then
    return ("%d"):format(value)
  end
  if type(value) == "number" then return ("%.17g"):format(value) end
  if type(value) == "cdata" then return (tostring(value):gsub("U?LL$", "")) end
  return tostring(value)
end

local function is_number(value)
  return type(value) == "number" or type(value) == "cdata"
end

-- Two numbers in one representation: beside a 64-bit integer LuaJIT would cut a double's fraction.
local function aligned(a, b)
  if type(a) ~= type(b) then return tonumber(a), tonumber(b) end
  return a, b
end

local function equal(a, b)
  if is_number(a) and is_number(b) then a, b = aligned(a, b) end
  return type(a) == type(b) and a == b
end

local RANKS = { number = 1, cdata = 1, string = 2, boolean = 3, table = 4 }

-- An order of all values: numbers, strings (by bytes), false, true, then what has no order, null
-- last.
local function compare(a, b)
  if a == nil or b == nil then return a == b and 0 or a == nil and 1 or -1 end
  local s, t = RANKS[type(a)] or 5, RANKS[type(b)] or 5
  if s ~= t then return s < t and -1 or 1 end
  if s == 3 then a, b = a and 1 or 0, b and 1 or 0 end
  if s > 3 then return 0 end
  if s == 1 then a, b = aligned(a, b) end
  if a < b then return -1 end
  if a > b then return 1 end
  if a == b then return 0 end
  local nan_a, nan_b = a ~= a, b ~= b       -- NaN comes after all numbers
  return nan_a == nan_b and 0 or nan_a and 1 or -1
end

local function is_in(value, list)
  for i = 1, #list do
    if equal(list[i], value) then return true end
  end
  return false
end

-- -1, 0 or 1, or nil if the two are of different kinds.
local function order_of(a, b)
  local kind = type(a) == "string" and type(b) == "string" or is_number(a) and is_number(b)
  if not kind or a ~= a or b ~= b then return nil end
  return compare(a, b)
end

local function starts_with(a, b)
  return type(a) == "string" and a:sub(1, #b) == b
end

local function ends_with(a, b)
  return type(a) == "string" and #a >= #b and a:sub(#a - #b + 1) == b
end

local function contains(a, b)
  if type(a) == "table" then return is_in(b, a) end
  return type(a) == "string" and type(b) == "string" and a:find(b, 1, true) ~= nil
end

-- Each compares a field's value (nil for null) with the given one. Values of different kinds are
-- neither less nor more than each other.
local OPERATORS = {
  ["=="] = equal,
  ["~="] = function(a, b) return not equal(a, b) end,
  ["<"] = function(a, b) return order_of(a, b) == -1 end,
  ["<="] = function(a, b) return (order_of(a, b) or 1) <= 0 end,
  [">"] = function(a, b) return order_of(a, b) == 1 end,
  [">="] = function(a, b) return (order_of(a, b) or -1) >= 0 end,
  ["in"] = function(a, b) return a ~= nil and is_in(a, b) end,
  ["not in"] = function(a, b) return not is_in(a, b) end,
  contains = contains,
  ["starts with"] = starts_with,
  ["ends with"] = ends_with,
}
OPERATORS["="], OPERATORS["!="] = OPERATORS["=="], OPERATORS["~="]

local NEEDS = { ["in"] = "table", ["not in"] = "table", ["starts with"] = "string",
  ["ends with"] = "string" }

--- Rows whose field stands in a relation to a value. Operators: `==` (or `=`), `~=` (or `!=`), `<`,
--- `<=`, `>`, `>=`, `in` and `not in` (a list), `contains` (a part of a text, or an element of a
--- list), `starts with`, `ends with`. A null field equals only null and is neither less nor more.
---@param rows table[]
---@param field string
---@param op string
---@param value any
---@return table[]
function tables.filter(rows, field, op, value)
  check_rows("filter", rows)
  check_field("filter", field)
  local holds = OPERATORS[op]
  if not holds then invalid("tables.filter: there is no operator %s", tostring(op)) end
  if NEEDS[op] and type(value) ~= NEEDS[op] then
    invalid("tables.filter: %s needs a %s, not %s", op, NEEDS[op] == "table" and "list" or "string",
      name_of(value))
  end
  if value == null then value = nil end
  local kept = {}
  for i = 1, #rows do
    if holds(value_of(rows[i], field), value) then kept[#kept + 1] = rows[i] end
  end
  return kept
end

--- Rows with these fields alone. A dotted name becomes a field of that name; a missing field stays
--- missing.
---@param rows table[]
---@param fields string[]
---@return table[]
function tables.select(rows, fields)
  check_rows("select", rows)
  check_list("select", fields, "fields")
  for i = 1, #fields do check_field("select", fields[i], "each of fields") end
  local list = {}
  for i = 1, #rows do
    local row = {}
    for _, field in ipairs(fields) do row[field] = value_of(rows[i], field) end
    list[i] = row
  end
  return list
end

--- Rows without these fields.
---@param rows table[]
---@param fields string[]
---@return table[]
function tables.without(rows, fields)
  check_rows("without", rows)
  check_list("without", fields, "fields")
  local list = {}
  for i = 1, #rows do
    local row = {}
    for key, value in pairs(rows[i]) do
      if not is_in(key, fields) then row[key] = value end
    end
    list[i] = row
  end
  return list
end

--- Rows with some fields under another name.
---@param rows table[]
---@param names table<string,string>  old name → new name
---@return table[]
function tables.rename(rows, names)
  check_rows("rename", rows)
  check_map("rename", names, "names")
  for _, name in pairs(names) do check_field("rename", name, "a new name") end
  local list = {}
  for i = 1, #rows do
    local row = {}
    for key, value in pairs(rows[i]) do
      if not names[key] then row[key] = value end
    end
    for old, new in pairs(names) do
      if rows[i][old] ~= nil then row[new] = rows[i][old] end
    end
    list[i] = row
  end
  return list
end

local function directions(fields, order)
  order = order == nil and "asc" or order
  local list = {}
  for i = 1, #fields do
    local way = order
    if type(order) == "table" then way = order[i] or "asc" end
    if way ~= "asc" and way ~= "desc" then
      invalid([[tables.sort_by: the order must be "asc" or "desc", not %s]], tostring(way))
    end
    list[i] = way == "desc" and -1 or 1
  end
  return list
end

--- Rows in order of a field, or of several. Rows that are equal in these keep their order. Numbers
--- come before strings (which go by their bytes) before booleans; null comes last, either way.
---@param rows table[]
---@param fields string|string[]
---@param order? "asc"|"desc"|string[]  one for all, or one for each field
---@return table[]
function tables.sort_by(rows, fields, order)
  check_rows("sort_by", rows)
  if type(fields) == "string" then fields = { fields } end
  check_list("sort_by", fields, "fields")
  for i = 1, #fields do check_field("sort_by", fields[i], "each of fields") end
  local signs, entries = directions(fields, order), {}
  for i = 1, #rows do
    local entry = { row = rows[i], place = i }
    for f = 1, #fields do entry[f] = value_of(rows[i], fields[f]) end
    entries[i] = entry
  end
  table.sort(entries, function(a, b)
    for f = 1, #fields do
      local sign = compare(a[f], b[f])
      if sign ~= 0 then
        if a[f] ~= nil and b[f] ~= nil then sign = sign * signs[f] end
        return sign < 0
      end
    end
    return a.place < b.place
  end)
  for i = 1, #entries do entries[i] = entries[i].row end
  return entries
end

-- Rows by the key of a field, and the keys in the order of their first row.
local function groups_of(fun, rows, field)
  check_rows(fun, rows)
  check_field(fun, field)
  local groups, keys = {}, {}
  for i = 1, #rows do
    local key = key_of(fun, value_of(rows[i], field))
    if not groups[key] then
      groups[key] = {}
      keys[#keys + 1] = key
    end
    table.insert(groups[key], rows[i])
  end
  return groups, keys
end

--- Rows grouped by a field: a map of lists. Its keys are strings: 7 is "7", null is "null".
---@param rows table[]
---@param field string
---@return table<string,table[]>
function tables.group_by(rows, field)
  return (groups_of("group_by", rows, field))
end

--- The same as a list, in the order of each group's first row: for `each` in a pipeline.
---@param rows table[]
---@param field string
---@return table[]  of { key, count, rows }
function tables.groups(rows, field)
  local groups, keys = groups_of("groups", rows, field)
  local list = {}
  for i, key in ipairs(keys) do
    list[i] = { key = key, count = #groups[key], rows = groups[key] }
  end
  return list
end

--- How many rows there are of each value of a field.
---@param rows table[]
---@param field string
---@return table<string,integer>
function tables.count_by(rows, field)
  local counts = {}
  for key, group in pairs((groups_of("count_by", rows, field))) do counts[key] = #group end
  return counts
end

local function numbers_in(fun, rows, field)
  local list = {}
  for i = 1, #rows do
    local value = value_of(rows[i], field)
    if value ~= nil then
      if not is_number(value) then
        invalid("tables.%s: %s must be a number in every row, not %s", fun, field, name_of(value))
      end
      list[#list + 1] = tonumber(value)
    end
  end
  return list
end

local function sum_of(list)
  local sum = 0
  for i = 1, #list do sum = sum + list[i] end
  return sum
end

--- Sum of one field for each value of another. Nulls add nothing.
---@param rows table[]
---@param field string  groups
---@param value string  is summed
---@return table<string,number>
function tables.sum_by(rows, field, value)
  check_field("sum_by", value, "value")
  local sums = {}
  for key, group in pairs((groups_of("sum_by", rows, field))) do
    sums[key] = sum_of(numbers_in("sum_by", group, value))
  end
  return sums
end

local function extreme(list, sign)
  local best = list[1]
  for i = 2, #list do
    if (list[i] - best) * sign > 0 then best = list[i] end
  end
  return best
end

local AGGREGATES = {
  count = function(list) return #list end,
  sum = sum_of,
  mean = function(list) return #list > 0 and sum_of(list) / #list or nil end,
  min = function(list) return extreme(list, -1) end,
  max = function(list) return extreme(list, 1) end,
}

local function check_aggregates(columns)
  check_map("aggregate", columns, "columns")
  for name, column in pairs(columns) do
    check_map("aggregate", column, ("columns.%s"):format(name))
    if not AGGREGATES[column[1]] then
      invalid("tables.aggregate: columns.%s must begin with count, sum, mean, min or max", name)
    end
    if column[1] ~= "count" or column[2] ~= nil then
      check_field("aggregate", column[2], ("columns.%s[2]"):format(name))
    end
  end
end

--- One row for each value of a field, with figures of its group: a column is `{ "sum", field }`, or
--- `mean`, `min`, `max`, `count` (without a field: all rows). Null where no row has a number.
---@param rows table[]
---@param field string
---@param columns table  e.g. { n = { "count" }, top = { "max", "mag" } }
---@return table[]
function tables.aggregate(rows, field, columns)
  local groups, keys = groups_of("aggregate", rows, field)
  check_aggregates(columns)
  local list = {}
  for i, key in ipairs(keys) do
    local group = groups[key]
    local first = value_of(group[1], field)
    local row = { [field] = first == nil and null or first }
    for name, column in pairs(columns) do
      local kind, source = column[1], column[2]
      if kind == "count" then
        row[name] = source and #tables.filter(group, source, "~=", nil) or #group
      else
        local value = AGGREGATES[kind](numbers_in("aggregate", group, source))
        row[name] = value == nil and null or value
      end
    end
    list[i] = row
  end
  return list
end

--- A map from a field's value to the row that has it. Two rows with one value are refused.
---@param rows table[]
---@param field string
---@return table<string,table>
function tables.index_by(rows, field)
  local groups = groups_of("index_by", rows, field)
  local map = {}
  for key, group in pairs(groups) do
    if #group > 1 then invalid("tables.index_by: %d rows have the %s %s", #group, field, key) end
    map[key] = group[1]
  end
  return map
end

local function merged(left, right, key, suffix)
  local row = {}
  for name, value in pairs(left) do row[name] = value end
  for name, value in pairs(right) do
    if name ~= key then
      if row[name] ~= nil then name = name .. suffix end
      row[name] = value
    end
  end
  return row
end

local function join_options(opts)
  opts = (opts == nil or opts == null) and {} or opts
  check_map("join", opts, "the options")
  local kind, suffix = opts.kind or "inner", opts.suffix or "_right"
  if kind ~= "inner" and kind ~= "left" then
    invalid([[tables.join: the kind must be "inner" or "left", not %s]], tostring(kind))
  end
  if type(suffix) ~= "string" or suffix == "" then
    invalid("tables.join: the suffix must be a string that is not empty")
  end
  return kind, suffix, opts.right
end

--- Joins each row with the rows of another list that have the same value in a field (null has no
--- partner). `inner` leaves rows without a partner out, `left` keeps them. A field that both have
--- gets a suffix in what comes from the right.
---@param left table[]
---@param right table[]
---@param field string
---@param opts? table  { kind = "inner"|"left", right = the field's name there, suffix = "_right" }
---@return table[]
function tables.join(left, right, field, opts)
  check_rows("join", left, "left")
  check_rows("join", right, "right")
  check_field("join", field)
  local kind, suffix, right_field = join_options(opts)
  right_field = right_field or field
  check_field("join", right_field, "right")
  local partners = {}
  for i = 1, #right do
    local value = value_of(right[i], right_field)
    if value ~= nil then
      partners[value] = partners[value] or {}
      table.insert(partners[value], right[i])
    end
  end
  local rows = {}
  for i = 1, #left do
    local value = value_of(left[i], field)
    local found = value ~= nil and partners[value] or nil
    for p = 1, found and #found or 0 do
      rows[#rows + 1] = merged(left[i], found[p], right_field, suffix)
    end
    if not found and kind == "left" then rows[#rows + 1] = left[i] end
  end
  return rows
end

--- One field of every row; null where it is missing.
---@param rows table[]
---@param field string
---@return any[]
function tables.pluck(rows, field)
  check_rows("pluck", rows)
  check_field("pluck", field)
  local list = {}
  for i = 1, #rows do
    local value = value_of(rows[i], field)
    if value == nil then value = null end
    list[i] = value
  end
  return list
end

--- The value at a path in nested maps and lists ("rows.1.name"; places count from 1, from the end
--- if negative), or the default.
---@param value any
---@param path string
---@param default? any
---@return any
function tables.get(value, path, default)
  check_field("get", path, "path")
  for key in path:gmatch("[^.]+") do
    if type(value) ~= "table" then return default end
    local place = tonumber(key)
    local found = value[key]
    if found == nil and place then found = value[place < 0 and #value + 1 + place or place] end
    value = found
  end
  if value == nil or value == null then return default end
  return value
end

--- The first `n` elements; the last ones if `n` is negative.
---@param list any[]
---@param n integer
---@return any[]
function tables.take(list, n)
  check_list("take", list)
  check_count("take", n)
  local from, to = 1, math.min(n, #list)
  if n < 0 then from, to = math.max(1, #list + n + 1), #list end
  local part = {}
  for i = from, to do part[#part + 1] = list[i] end
  return part
end

--- All but the first `n` elements; all but the last ones if `n` is negative.
---@param list any[]
---@param n integer
---@return any[]
function tables.drop(list, n)
  check_list("drop", list)
  check_count("drop", n)
  local part = {}
  for i = n < 0 and 1 or n + 1, n < 0 and #list + n or #list do part[#part + 1] = list[i] end
  return part
end

--- The list from its end to its start.
---@param list any[]
---@return any[]
function tables.reverse(list)
  check_list("reverse", list)
  local reversed, n = {}, #list
  for i = 1, n do reversed[i] = list[n + 1 - i] end
  return reversed
end

--- The list's plain values (no lists or maps), each once, in the order in which they first appear.
---@param list any[]
---@return any[]
function tables.unique(list)
  check_list("unique", list)
  local seen, values = {}, {}
  for i = 1, #list do
    local value = list[i]
    if type(value) == "table" then invalid("tables.unique: element %d is no plain value", i) end
    local key = value
    if type(value) == "cdata" then key = tostring(value) end
    if key ~= key then key = "NaN" .. type(value) end
    if not seen[key] then
      seen[key] = true
      values[#values + 1] = value
    end
  end
  return values
end

--- A list of lists as one list. What is no list stays as it is; deeper lists stay lists unless
--- `depth` says otherwise.
---@param list any[]
---@param depth? integer  1 if left out
---@return any[]
function tables.flatten(list, depth)
  check_list("flatten", list)
  depth = depth == nil and 1 or depth
  check_count("flatten", depth, 0, "depth")
  local level = list
  for _ = 1, depth do
    local flat, deeper = {}, false
    for i = 1, #level do
      local element = level[i]
      if type(element) == "table" and (#element > 0 or next(element) == nil) then
        deeper = true
        for j = 1, #element do flat[#flat + 1] = element[j] end
      else
        flat[#flat + 1] = element
      end
    end
    level = flat
    if not deeper then break end
  end
  return level == list and tables.take(list, #list) or level
end

--- Numbers from `first` to `last`, both included.
---@param first number
---@param last number
---@param step? number  1 if left out; may be negative
---@return number[]
function tables.range(first, last, step)
  step = step == nil and 1 or step
  for name, value in pairs { first = first or false, last = last or false, step = step } do
    if type(value) ~= "number" or value - value ~= 0 then
      invalid("tables.range: %s must be a finite number", name)
    end
  end
  if step == 0 then invalid("tables.range: step must not be 0") end
  local count = math.floor((last - first) / step + 1e-9) + 1
  if count > LENGTH_MAX then
    invalid("tables.range: %.0f numbers are more than %d", count, LENGTH_MAX)
  end
  local list = {}
  for i = 1, count do list[i] = first + (i - 1) * step end
  return list
end

--- The list in pieces of `size` elements; the last one may be shorter.
---@param list any[]
---@param size integer  from 1
---@return any[][]
function tables.chunk(list, size)
  check_list("chunk", list)
  check_count("chunk", size, 1, "size")
  local chunks = {}
  for first = 1, #list, size do
    local chunk = {}
    for i = first, math.min(first + size - 1, #list) do chunk[i - first + 1] = list[i] end
    chunks[#chunks + 1] = chunk
  end
  return chunks
end

--- Lists one after the other.
---@param ... any[]
---@return any[]
function tables.concat(...)
  local list = {}
  for a = 1, select("#", ...) do
    local part = select(a, ...)
    check_list("concat", part, ("argument %d"):format(a))
    for i = 1, #part do list[#list + 1] = part[i] end
  end
  return list
end

--- Lists side by side: element i is the list of their elements i. They have one length.
---@param ... any[]
---@return any[][]
function tables.zip(...)
  local lists = { ... }
  for a = 1, select("#", ...) do
    check_list("zip", lists[a], ("argument %d"):format(a))
    if #lists[a] ~= #lists[1] then
      invalid("tables.zip: the lists differ in length: %d and %d", #lists[1], #lists[a])
    end
  end
  local rows = {}
  for i = 1, lists[1] and #lists[1] or 0 do
    rows[i] = {}
    for a = 1, #lists do rows[i][a] = lists[a][i] end
  end
  return rows
end

--- The list's length, or how many keys the map has.
---@param value table
---@return integer
function tables.count(value)
  check_map("count", value, "the argument")
  if #value > 0 then return #value end
  local n = 0
  for _ in pairs(value) do n = n + 1 end
  return n
end

local function sorted_keys(fun, map)
  check_map(fun, map, "the argument")
  local keys = {}
  for key in pairs(map) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b) return compare(a, b) < 0 end)
  return keys
end

--- The map's keys, sorted.
---@param map table
---@return string[]
function tables.keys(map)
  return sorted_keys("keys", map)
end

--- The map's values, in order of their keys.
---@param map table
---@return any[]
function tables.values(map)
  local list = sorted_keys("values", map)
  for i = 1, #list do list[i] = map[list[i]] end
  return list
end

--- The map as rows, in order of the keys: for `each` in a pipeline.
---@param map table
---@return table[]  of { key, value }
function tables.entries(map)
  local list = sorted_keys("entries", map)
  for i = 1, #list do list[i] = { key = list[i], value = map[list[i]] } end
  return list
end

--- Rows of { key, value } as a map; of two with one key the later counts.
---@param rows table[]
---@return table<string,any>
function tables.from_entries(rows)
  check_rows("from_entries", rows)
  local map = {}
  for i = 1, #rows do map[key_of("from_entries", rows[i].key)] = rows[i].value end
  return map
end

--- Maps laid over one another: of two values of a key the later counts.
---@param ... table
---@return table<string,any>
function tables.merge(...)
  local map = {}
  for a = 1, select("#", ...) do
    local part = select(a, ...)
    check_map("merge", part, ("argument %d"):format(a))
    for key, value in pairs(part) do map[key] = value end
  end
  return map
end

tables._mpreg = {}
for name, fun in pairs(tables) do
  if type(fun) == "function" then tables._mpreg[name] = { idempotent = true } end
end

return tables
