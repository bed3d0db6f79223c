--- Arguments of a command: argparse with the rules of ours that it does not know.
---
--- * What looks like a number (`-1`, `-.5e3`) is an argument: such words carry a mark while
---   argparse sees them.
--- * A flag that is not repeatable, given twice, is an error.
--- * Errors are ERROR tables for whoever prints them; argparse itself prints nothing and never
---   exits. Nor does it write the help: it repeats a flag's placeholder for each of its names.
---
--- A command is described by a table:
---
---     { name = "call", usage = "FUN [ARG…]", summary = "…", description = "…", examples = "…",
---       arguments = { { "FUN", "help" }, { "ARG", "help", count = "*" } },
---       flags = { { "-t --timeout", "5s", "help", type = args.duration }, … } }
---
--- A flag with a placeholder (its second element) takes a value; one with false does not. `many`
--- (how often at most, or true) gives a list. Results stand under the last long name, with `_` for
--- `-`.

local suggest = require "mpreg.suggest"
local units = require "mpreg.units"

local M = {}

local NUMBER_MARK = "\1number:"
local FLAG_BYTES_MAX = 256

-- ------------------------------------------------------------------------------------------------
-- Types: text → value, or nil and what is wrong
-- ------------------------------------------------------------------------------------------------

M.duration = units.duration_ms
M.size = units.size_bytes

--- A duration of at least a millisecond.
function M.timeout(text)
  local ms, problem = units.duration_ms(text)
  if ms == 0 then return nil, ("'%s' leaves no time at all"):format(text) end
  return ms, problem
end

--- A whole number in a range.
---@param low number
---@param high number
function M.integer(low, high)
  return function(text)
    local n = text:find("^%-?%d+$") and tonumber(text)
    if not n then return nil, ("'%s' is no whole number"):format(text) end
    if n < low or n > high then
      return nil, ("%s is out of range: from %.0f to %.0f"):format(text, low, high)
    end
    return n
  end
end

--- One of some words.
---@param words string[]
function M.choice(words)
  return function(text)
    for i = 1, #words do
      if words[i] == text then return text end
    end
    return nil, ("'%s' is none of %s%s"):format(text, table.concat(words, ", "),
      suggest.question(text, words))
  end
end

--- HOST:PORT, also [IPv6]:PORT.
function M.address(text)
  local host, port = text:match("^%[([%x:.%%%w]+)%]:(%d+)$")
  if not host then host, port = text:match("^([^:%s/]+):(%d+)$") end
  if not host or #port > 5 or tonumber(port) > 65535 then
    return nil, ("'%s' is no HOST:PORT, such as 127.0.0.1:7400"):format(text)
  end
  return text
end

--- The name of a node, a cluster or a resource.
function M.name(text)
  if not text:find("^[%w_][%w_-]*$") or #text > 64 then
    return nil, ("'%s' is no name: use up to 64 letters, digits, _ and -"):format(text)
  end
  return text
end

--- The name of a function: module.function, the module dotted too if it likes.
function M.function_name(text)
  local is_name = #text <= 512 and text:find(".", 1, true) ~= nil
  for part in (text .. "."):gmatch("(.-)%.") do is_name = is_name and M.name(part) ~= nil end
  if not is_name then
    return nil, ("'%s' is no function's name, such as module.function"):format(text:sub(1, 80))
  end
  return text
end

-- ------------------------------------------------------------------------------------------------
-- Flags that many commands have
-- ------------------------------------------------------------------------------------------------

M.HELP = { "-h --help", false, "Show this help." }
M.OUTPUT = { "-o --output", "json|text", "One JSON document on stdout, or text for people.",
  type = M.choice { "json", "text" } }
M.TIMEOUT = { "-t --timeout", "5s", "Deadline of the whole request (units ms s m h).",
  type = M.timeout }
M.NODE = { "-n --node", "HOST:PORT",
  "A node to ask; repeatable, tried in turn. Else $MPREG_NODE, else 127.0.0.1:7400.", many = 64,
  type = M.address }
M.NEED = { "--need", "RESOURCE", "A resource that the node must have; repeatable.", many = 32,
  type = M.name }

-- ------------------------------------------------------------------------------------------------
-- Parsing
-- ------------------------------------------------------------------------------------------------

--- The ERROR of a wrong command line.
---@param message string
---@param hint? string
---@return table
function M.fault(message, hint)
  return { code = "INVALID_ARGUMENT", reason = "USAGE", message = message, hint = hint }
end

local function long_name(aliases)
  return (aliases:match("%-%-([%w-]+)$"))
end

local function key_of(aliases)
  return (long_name(aliases):gsub("-", "_"))
end

local function build(command)
  local parser = require "argparse"("mpreg " .. command.name):add_help(false)
  for _, argument in ipairs(command.arguments or {}) do
    parser:argument(argument[1]):args(argument.count or 1)
  end
  for _, flag in ipairs(command.flags) do
    local option = flag[2] and parser:option(flag[1]):argname(flag[2]) or parser:flag(flag[1])
    option:count(flag.many and "*" or "?"):overwrite(false):target(key_of(flag[1]))
  end
  return parser
end

--- Every spelling of every flag of a command.
local function spellings(command)
  local list = {}
  for _, flag in ipairs(command.flags) do
    for alias in flag[1]:gmatch("%S+") do list[#list + 1] = alias end
  end
  return list
end

local function is_number_like(word)
  return word:find("^%-%.?%d") and tonumber(word) ~= nil
end

local function unmark(value)
  if type(value) == "table" then
    for key, inner in pairs(value) do value[key] = unmark(inner) end
  elseif type(value) == "string" and value:sub(1, #NUMBER_MARK) == NUMBER_MARK then
    return value:sub(#NUMBER_MARK + 1)
  end
  return value
end

local function apply_types(command, result)
  for _, argument in ipairs(command.arguments or {}) do
    if argument.type then
      local _, problem = argument.type(result[argument[1]])
      if problem then return nil, M.fault(problem) end
    end
  end
  for _, flag in ipairs(command.flags) do
    local key = key_of(flag[1])
    local value = result[key]
    if flag.many and type(value) == "table" and #value == 0 then
      value, result[key] = nil, nil
    end
    if flag.type and value ~= nil then
      local name = "--" .. long_name(flag[1])
      local is_list = type(value) == "table"
      if is_list and type(flag.many) == "number" and #value > flag.many then
        return nil, M.fault(("%s can be given %d times"):format(name, flag.many))
      end
      for i = 1, is_list and #value or 1 do
        local converted, problem = flag.type(is_list and value[i] or value)
        if converted == nil then return nil, M.fault(name .. ": " .. problem) end
        if is_list then value[i] = converted else result[key] = converted end
      end
    end
  end
  return result
end

--- Parses the words after the command's name.
---@param command table
---@param words string[]
---@return table? result  flags and arguments by name; `help = true` alone if help was asked for
---@return table? ERROR
function M.parse(command, words)
  local marked = {}
  for i = 1, #words do
    local word = words[i]
    local name = word:match("^%-%-[^=]*")
    if name and #name > FLAG_BYTES_MAX then
      return nil, M.fault(("unknown flag '%s…'"):format(name:sub(1, 40)))
    end
    marked[i] = is_number_like(word) and NUMBER_MARK .. word or word
  end

  -- Help is given whatever else stands there, right or wrong.
  for i = 1, #words do
    if words[i] == "--" then break end
    if words[i] == "--help" or words[i] == "-h" then return { help = true } end
  end

  local fault
  local parser = build(command)
  function parser.error(_, message)
    message = message:gsub("\nDid you mean.*", ""):gsub(NUMBER_MARK, "")
      :gsub("%f[%w]option%f[%W]", "flag")
    local wrong = message:match("^unknown flag '(.*)'$")
    local near = wrong and #wrong > 2 and suggest.nearest(wrong, spellings(command))
    fault = M.fault(message, near and ("did you mean %s?"):format(near)
      or ("mpreg %s --help lists its flags"):format(command.name))
    error(fault, 0)
  end
  local ok, result = pcall(parser.parse, parser, marked)
  if not ok then
    if fault and result == fault then return nil, fault end
    error(result, 0)
  end
  return apply_types(command, unmark(result))
end

-- ------------------------------------------------------------------------------------------------
-- Help
-- ------------------------------------------------------------------------------------------------

local HELP_COLUMNS = 96
local HELP_TEXT_COLUMN = 28

--- Breaks a text into lines of at most `columns` bytes; its own line ends stay.
local function wrap(text, columns)
  local lines = {}
  for paragraph in (text .. "\n"):gmatch("(.-)\n") do
    local line = ""
    for word in paragraph:gmatch("%S+") do
      if line ~= "" and #line + 1 + #word > columns then
        lines[#lines + 1] = line
        line = word
      else
        line = line == "" and word or line .. " " .. word
      end
    end
    lines[#lines + 1] = line
  end
  return lines
end

--- Names on the left, their texts on the right.
local function definitions(out, rows)
  for _, row in ipairs(rows) do
    local lines = wrap(row[2], HELP_COLUMNS - HELP_TEXT_COLUMN)
    local left = "  " .. row[1]
    if #left + 2 > HELP_TEXT_COLUMN then
      out[#out + 1] = left
      left = ""
    end
    for _, line in ipairs(lines) do
      out[#out + 1] = left .. (" "):rep(HELP_TEXT_COLUMN - #left) .. line
      left = ""
    end
  end
end

local function flag_title(flag)
  local short = flag[1]:match("^(%-%w) ")
  local title = (short and short .. ", " or "    ") .. "--" .. long_name(flag[1])
  return flag[2] and title .. " " .. flag[2] or title
end

--- The text of `mpreg CMD --help`.
---@param command table
---@return string
function M.help(command)
  local out = { ("Usage: mpreg %s %s"):format(command.name, command.usage), "" }
  for _, line in ipairs(wrap(command.description or command.summary, HELP_COLUMNS)) do
    out[#out + 1] = line
  end
  if command.arguments then
    out[#out + 1] = "\nArguments:"
    definitions(out, command.arguments)
  end
  out[#out + 1] = "\nFlags:"
  local rows = {}
  for i, flag in ipairs(command.flags) do rows[i] = { flag_title(flag), flag[3] } end
  definitions(out, rows)
  out[#out + 1] = "\nExample:\n" .. command.examples
  return table.concat(out, "\n") .. "\n"
end

M.definitions = definitions

return M
