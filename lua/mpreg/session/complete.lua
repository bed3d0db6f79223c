--- What a name typed in a session may become: globals, fields, methods, functions of the cluster.
---
--- The text up to the cursor is cut into tokens, and the path at its end (`a.b["c"].d`, `a[1]:m`)
--- is followed through tables with `rawget`, and on through each `__index` that is a table. No code
--- of the session runs for it, and of huge tables only some keys are looked at.
---
--- Modules of the cluster need not be values: they are a second tree, of dotted names, that is
--- followed beside the values.

local value_text = require "mpreg.render.value"

local M = {}

local CANDIDATES_MAX = 1000
local LOOKS = 100000    -- keys, of all tables together
local TEXT_MAX = 262144 -- bytes; in more nothing is completed
local NAME_MAX = 200    -- bytes; longer ones are no names that somebody completes
local CHAIN_MAX = 16    -- tables behind each other by __index, which may form a ring

-- --- tokens ---

--- Behind a string in quotes: the position, and the text if it has no escapes; nil if it does not
--- end. A line's end ends it too, wrongly, but what follows is code again.
local function skip_quoted(text, from)
  local quote = text:sub(from, from)
  local at = from + 1
  while true do
    at = text:find("[\\\n\"']", at)
    if not at then return nil end
    local c = text:sub(at, at)
    if c == quote then
      local inside = text:sub(from + 1, at - 1)
      return at + 1, not inside:find("\\", 1, true) and inside or nil
    elseif c == "\n" then
      return at
    elseif c ~= "\\" then
      at = at + 1
    elseif text:sub(at + 1, at + 1) == "z" then
      at = text:find("%S", at + 2) or #text + 1
    else
      at = at + (text:find("^\r\n", at + 1) and 3 or 2)
    end
  end
end

--- Behind a long bracket that opens here, and what is inside; false if none opens, nil if it does
--- not end.
local function skip_long(text, from)
  local level = text:match("^%[(=*)%[", from)
  if not level then return false end
  local first = from + #level + 2
  local last, behind = text:find("]" .. level .. "]", first, true)
  if not last then return nil end
  return behind + 1, (text:sub(first, last - 1):gsub("^\r?\n", ""))
end

local function skip_comment(text, from)
  local behind = skip_long(text, from + 2)
  if behind == false then behind = text:find("\n", from, true) end
  return behind
end

--- The token at `from`: its kind, the position behind it, its value. Kinds are "name", "string",
--- "number", "space" (comments too), or the token itself. Nothing if it does not end.
local function token_at(text, from)
  local c = text:sub(from, from)
  if c:find("%s") then return "space", text:find("%S", from) or #text + 1 end
  if c:find("[%a_\128-\255]") then
    local behind = text:find("[^%w_\128-\255]", from) or #text + 1
    return "name", behind, text:sub(from, behind - 1)
  elseif c:find("%d") or c == "." and text:find("^%d", from + 1) then
    -- An exponent with a sign makes three tokens, which does no harm here.
    local behind = text:find("[^%w_.]", from) or #text + 1
    return "number", behind, tonumber(text:sub(from, behind - 1))
  elseif c == '"' or c == "'" then
    local behind, inside = skip_quoted(text, from)
    return behind and "string", behind, inside
  elseif text:find("^%-%-", from) then
    local behind = skip_comment(text, from)
    return behind and "space", behind
  end
  local behind, inside = skip_long(text, from)
  if behind == nil then return nil end
  if behind then return "string", behind, inside end
  local symbol = text:match("^%.%.%.?", from) or text:match("^::", from) or c
  return symbol, from + #symbol
end

--- The tokens of a text: where each begins, its kind and its value; nil if the text ends inside a
--- string or a comment.
local function tokens_of(text)
  local tokens = { kinds = {}, values = {}, froms = {}, count = 0 }
  local at, n = 1, 0
  while at <= #text do
    local kind, behind, value = token_at(text, at)
    if not kind then return nil end
    if kind ~= "space" then
      n = n + 1
      tokens.kinds[n], tokens.values[n], tokens.froms[n] = kind, value, at
      tokens.behind = behind
    end
    at = behind
  end
  tokens.count = n
  return tokens
end

-- --- paths ---

--- What stands in brackets that close at token `i`: the key, and the token before the brackets.
local function key_in_brackets(tokens, i)
  local kinds = tokens.kinds
  local key, before = tokens.values[i - 1], i - 3
  if kinds[i - 1] ~= "string" and kinds[i - 1] ~= "number" then return nil end
  if kinds[i - 1] == "number" and kinds[i - 2] == "-" then
    key, before = key and -key, i - 4
  end
  if kinds[before + 1] ~= "[" then return nil end
  return key, before
end

--- Is the `(` at token `i` a call's? Then what it gives cannot be known.
local function is_call(tokens, i)
  local kind, value = tokens.kinds[i - 1], tokens.values[i - 1]
  return kind == "name" and not value_text.KEYWORDS[value] or kind == "string" or kind == ")"
    or kind == "]"
end

--- The path that ends with token `last`: its keys from the last to the first, and the string that
--- it begins with if it is no global. Nil if it is none that can be followed.
local function path_before(tokens, last)
  local kinds, values = tokens.kinds, tokens.values
  local keys, i = {}, last
  while true do
    local kind = kinds[i]
    if kind == "name" then
      if value_text.KEYWORDS[values[i]] then return nil end
      keys[#keys + 1] = values[i]
      if kinds[i - 1] == ":" or kinds[i - 1] == "::" then return nil end
      if kinds[i - 1] ~= "." then return keys end
      i = i - 2
    elseif kind == "]" then
      local key, before = key_in_brackets(tokens, i)
      if key == nil then return nil end
      keys[#keys + 1] = key
      i = before
    elseif kind == ")" and kinds[i - 1] == "string" and kinds[i - 2] == "(" then
      return not is_call(tokens, i - 2) and keys or nil, ""
    else
      return nil
    end
  end
end

--- The table behind a value, if there is one that can be read without running code.
local function table_behind(value)
  local metatable = debug.getmetatable(value)
  local index = metatable and rawget(metatable, "__index")
  return type(index) == "table" and index or nil
end

local function get(value, key)
  for _ = 1, CHAIN_MAX do
    if type(value) == "table" then
      local found = rawget(value, key)
      if found ~= nil then return found end
    end
    value = table_behind(value)
    if value == nil then return nil end
  end
end

--- The name in the tree of modules, if there are modules at it or below it.
local function module_at(names, prefix, key)
  if type(key) ~= "string" then return nil end
  local name = prefix .. key
  local module = next(names)
  for _ = 1, LOOKS do
    if module == nil then return nil end
    if module == name or module:sub(1, #name + 1) == name .. "." then return name .. "." end
    module = next(names, module)
  end
end

--- Follows the keys: the value, and the beginning of the names of modules at it ("geo."). The
--- environment stands at the root of both trees, also as `_G`.
local function follow(keys, base, env, names)
  local value, prefix = base or env, not base and "" or nil
  for i = #keys, 1, -1 do
    if value ~= nil then value = get(value, keys[i]) end
    prefix = prefix and module_at(names, prefix, keys[i])
    if rawequal(value, env) then
      prefix = ""
    elseif value ~= nil and type(value) ~= "table" then
      prefix = nil -- a variable of the user's hides the module
    end
    if value == nil and not prefix then break end
  end
  return value, prefix
end

-- --- candidates ---

--- Collects names that begin with what was typed.
local function collector(typed)
  local found, set = {}, {}
  return found, function(name)
    if type(name) == "string" and #name <= NAME_MAX and name:sub(1, #typed) == typed
      and not set[name] and value_text.is_name(name) then
      set[name] = true
      found[#found + 1] = name
    end
  end
end

--- Of a value's fields, and those behind it. Gives how many more keys may be looked at.
local function add_fields(add, owner, is_method, looks)
  local value = owner
  for _ = 1, CHAIN_MAX do
    if type(value) == "table" then
      local key = next(value)
      while key ~= nil and looks > 0 do
        looks = looks - 1
        -- By way of the owner: a field hides those of its name that are behind.
        if not is_method or type(get(owner, key)) == "function" then add(key) end
        key = next(value, key)
      end
    end
    value = table_behind(value)
    if value == nil then break end
  end
  return looks
end

--- Of the modules whose names begin with `prefix` the next part, and the functions of this one.
local function add_modules(add, names, prefix, looks)
  local module = next(names)
  while module ~= nil and looks > 0 do
    looks = looks - 1
    if module:sub(1, #prefix) == prefix then add(module:match("^[^.]*", #prefix + 1)) end
    module = next(names, module)
  end
  for _, name in ipairs(rawget(names, prefix:sub(1, -2)) or {}) do
    if looks <= 0 then return end
    looks = looks - 1
    add(name)
  end
end

local function candidates(path, typed, env, names)
  local found, add = collector(typed)
  local value, prefix = follow(path.keys, path.base, env, names)
  local looks = add_fields(add, value, path.is_method, LOOKS)
  if prefix and not path.is_method then add_modules(add, names, prefix, looks) end
  if path.is_start then
    for word in pairs(value_text.KEYWORDS) do
      if word:sub(1, #typed) == typed then found[#found + 1] = word end
    end
  end
  table.sort(found)
  for i = #found, CANDIDATES_MAX + 1, -1 do found[i] = nil end
  return found
end

--- The path before what was typed, nil if there is none that can be followed. `i` is the last token
--- before it.
local function path_of(tokens, i)
  local kind = tokens.kinds[i]
  if kind == "::" then return nil end
  if kind ~= "." and kind ~= ":" then return { keys = {}, is_start = true } end
  local keys, base = path_before(tokens, i - 1)
  return keys and { keys = keys, base = base, is_method = kind == ":" }
end

--- What the text up to the cursor can be completed to.
---@param text string  all lines of the entry up to the cursor
---@param env table  the session's globals
---@param names table<string, string[]>  functions of the cluster, by module
---@return integer from  the byte from which on a candidate replaces the text
---@return string[] candidates  sorted, at most 1,000
function M.complete(text, env, names)
  local from = #text + 1
  local line = text:match("^.*\n(.*)$") or text
  -- A command of the client's, which completes those itself.
  if text:find("^%s*:") or line:find("^:") or #text > TEXT_MAX then return from, {} end
  local tokens = tokens_of(text)
  if not tokens then return from, {} end
  local last, typed = tokens.count, ""
  if tokens.behind == from then
    local kind = tokens.kinds[last]
    if kind == "number" then return from, {} end
    if kind == "name" then
      from, typed, last = tokens.froms[last], tokens.values[last], last - 1
    end
  end
  local path = path_of(tokens, last)
  if not path then return from, {} end
  return from, candidates(path, typed, env, names)
end

return M
