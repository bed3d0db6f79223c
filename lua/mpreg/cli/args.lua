--- Arguments of a command: flags anywhere, `--` ends them, what looks like a number (`-1`, `-.5e3`)
--- and a lone `-` are arguments, and a flag that is not repeatable cannot be given twice.
---
--- A command is described by a table:
---
---     { name = "call", usage = "FUN [ARG…]", summary = "…", description = "…", examples = "…",
---       arguments = { { "FUN", "help" }, { "ARG", "help", count = "*" } },
---       flags = { { "-t --timeout", "5s", "help", type = args.duration }, … } }
---
--- A flag with a metavar (its second element) takes a value; one with false does not. `many`
--- (how often at most, or true) gives a list. Results stand under the last long name, with `_` for
--- `-`. An argument's `count` is `?` (it may be missing), `*` or `+` (a list, `+` of at least one).
--- Flags in a list `hidden` are for programs of ours: neither help nor a shell tells of them.
---
--- What a shell may offer for an argument or a value follows from its name or metavar, unless
--- `complete` says otherwise: see mpreg.cli.complete.

local suggest = require "mpreg.suggest"
local units = require "mpreg.units"

local M = {}

local QUOTED_BYTES_MAX = 40

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

local function is_dotted(text)
  local is_name = #text <= 512
  for part in (text .. "."):gmatch("(.-)%.") do is_name = is_name and M.name(part) ~= nil end
  return is_name
end

--- The name of a module, which may be dotted.
function M.module_name(text)
  if not is_dotted(text) then
    return nil, ("'%s' is no module's name, such as geo.grid"):format(text:sub(1, 80))
  end
  return text
end

--- The name of a function: module.function, the module dotted too if it likes.
function M.function_name(text)
  if not text:find(".", 1, true) or not is_dotted(text) then
    return nil, ("'%s' is no function's name, such as module.function"):format(text:sub(1, 80))
  end
  return text
end

local DAY_MS = 86400 * 1000

--- Milliseconds since 1970 of a day and a time in UTC.
local function unix_ms(year, month, day, hour, minute, second)
  -- Years begin in March here, so that the day that some have more is their last.
  if month <= 2 then year, month = year - 1, month + 12 end
  local days = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
  return days * DAY_MS + ((hour * 60 + minute) * 60 + second) * 1000
end

--- A time such as 2026-01-31T12:00:00Z in Unix milliseconds; without Z or an offset it is local.
local function iso_ms(text)
  local year, month, day, rest = text:match("^(%d%d%d%d)%-(%d%d)%-(%d%d)(.*)$")
  local hour, minute, second, zone = (rest or ""):match("^[T ](%d%d):(%d%d):?(%d*%.?%d*)(.*)$")
  if not year then return nil end
  if rest == "" then hour, minute, second, zone = 0, 0, 0, "" end
  if not hour then return nil end
  local n = { tonumber(year), tonumber(month), tonumber(day), tonumber(hour), tonumber(minute),
    tonumber(second) or 0 }
  if n[2] < 1 or n[2] > 12 or n[3] < 1 or n[3] > 31 or n[4] > 23 or n[5] > 59 or n[6] >= 61 then
    return nil
  end
  if zone == "" then
    local whole = math.floor(n[6])
    local at = os.time { year = n[1], month = n[2], day = n[3], hour = n[4], min = n[5],
      sec = whole }
    return at and (at + n[6] - whole) * 1000
  end
  local sign, hours, minutes = zone:match("^([+-])(%d%d):?(%d%d)$")
  if not sign and zone ~= "Z" then return nil end
  local offset = sign and (hours * 60 + minutes) * 60000 * (sign == "-" and -1 or 1) or 0
  return unix_ms(unpack(n)) - offset
end

local UNIX_MS_DIGITS = 12 -- fewer: before 1973, so it was meant otherwise

--- How many milliseconds ago something was: a duration, also in days, Unix milliseconds, or a time.
--- A clock of seconds is asked, so of a point in time it may be up to a second more.
---@param text string
---@param now? number  Unix time in seconds
function M.since(text, now)
  local days = text:match("^(%d*%.?%d+)d$")
  if days then text = ("%.0fms"):format(tonumber(days) * DAY_MS) end
  local at = #text >= UNIX_MS_DIGITS and text:match("^%d+$") and tonumber(text) or iso_ms(text)
  if at then return math.max(1, math.ceil(((now or os.time()) + 1) * 1000 - at)) end
  local ms, problem = units.duration_ms(text)
  if ms then return ms end
  return nil, problem:find("is no duration", 1, true)
    and ("'%s' is neither how long ago, such as 5m or 2d, nor a time, such as "
      .. "2026-01-31T12:00:00Z"):format(text) or problem
end

--- The ERROR of what is no topic, or no pattern of topics; nil if it is one.
---@param text string
---@param is_pattern? boolean
---@return table?
function M.topic_fault(text, is_pattern)
  local problem = require "mpreg.native".topic_problem(text, is_pattern)
  if not problem then return nil end
  return { code = "INVALID_ARGUMENT", reason = "BAD_TOPIC", message = problem }
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

--- Every spelling of every flag of a command: spelling → flag, and a list of the spellings.
---@param command table
---@return table<string, table>
---@return string[]
local function spellings(command)
  local flags, list = {}, {}
  for _, flag in ipairs(command.flags) do
    for alias in flag[1]:gmatch("%S+") do
      flags[alias] = flag
      list[#list + 1] = alias
    end
  end
  for _, flag in ipairs(command.hidden or {}) do flags[flag[1]] = flag end
  return flags, list
end

--- Is a word on the command line a flag (or `--`), and no argument?
---@param word string
---@return boolean
local function is_flag(word)
  local is_number = word:find("^%-%.?%d") and tonumber(word) ~= nil
  return #word > 1 and word:sub(1, 1) == "-" and not is_number
end

local function unknown_flag(command, alias)
  local _, known = spellings(command)
  -- A single letter is near to every other one.
  local near = #alias > 2 and suggest.nearest(alias, known)
  if #alias > QUOTED_BYTES_MAX then alias = alias:sub(1, QUOTED_BYTES_MAX) .. "…" end
  return M.fault(("unknown flag '%s'"):format(alias), near and ("did you mean %s?"):format(near)
    or ("mpreg %s --help lists its flags"):format(command.name))
end

--- Puts a flag's value into the result; gives the ERROR of one that is given twice.
local function set_flag(result, flag, alias, value)
  local key = key_of(flag[1])
  if flag.many then
    result[key] = result[key] or {}
    table.insert(result[key], value)
  elseif result[key] ~= nil then
    return M.fault(("flag '%s' is given twice"):format(alias))
  else
    result[key] = value
  end
end

--- The value of a flag: what stands in the same word, else the next word. Gives it and the place of
--- the last word that was used, or nil and an ERROR.
local function value_of(flag, alias, inline, words, i)
  if inline then return inline, i end
  local value = words[i + 1]
  if value == nil or is_flag(value) then
    return nil, M.fault(("flag '%s' needs a value: %s"):format(alias, flag[2]))
  end
  return value, i + 1
end

--- Reads `words[i]`, a flag such as `--name` or `--name=value`. Gives the place of the last word
--- that belongs to it, or nil and an ERROR.
local function read_long(command, flags, words, i, result)
  local alias, inline = words[i]:match("^(%-%-[^=]*)=(.*)$")
  alias = alias or words[i]
  local flag = flags[alias]
  if not flag then return nil, unknown_flag(command, alias) end
  local value, last = true, i
  if flag[2] then
    value, last = value_of(flag, alias, inline, words, i)
    if not value then return nil, last end
  elseif inline then
    return nil, M.fault(("flag '%s' takes no value"):format(alias))
  end
  local err = set_flag(result, flag, alias, value)
  if err then return nil, err end
  return last
end

--- The same for short flags, of which one word may hold several (`-ab`, `-ojson`).
local function read_short(command, flags, words, i, result)
  local word = words[i]
  for k = 2, #word do
    local alias = "-" .. word:sub(k, k)
    local flag = flags[alias]
    if not flag then return nil, unknown_flag(command, alias) end
    local value, last = true, i
    if flag[2] then
      value, last = value_of(flag, alias, k < #word and word:sub(k + 1) or nil, words, i)
      if not value then return nil, last end
    end
    local err = set_flag(result, flag, alias, value)
    if err then return nil, err end
    if flag[2] then return last end
  end
  return i
end

--- Gives the words that are no flags to the arguments; gives an ERROR if they do not match.
local function set_arguments(command, given, result)
  local k = 1
  for _, argument in ipairs(command.arguments or {}) do
    if argument.count == "*" or argument.count == "+" and given[k] then
      result[argument[1]] = { unpack(given, k) }
      k = #given + 1
    else
      if given[k] == nil and argument.count ~= "?" then
        return M.fault(("missing argument '%s'"):format(argument[1]),
          ("mpreg %s --help shows how to write it"):format(command.name))
      end
      result[argument[1]] = given[k]
      k = k + 1
    end
  end
  if k <= #given then
    return M.fault(("too many arguments: '%s'"):format(given[k]:sub(1, QUOTED_BYTES_MAX)))
  end
end

local function apply_types(command, result)
  for _, argument in ipairs(command.arguments or {}) do
    if argument.type and result[argument[1]] ~= nil then
      local _, problem = argument.type(result[argument[1]])
      if problem then return nil, M.fault(problem) end
    end
  end
  for _, flag in ipairs(command.flags) do
    local key = key_of(flag[1])
    local value = result[key]
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
  -- Help is given whatever else stands there, right or wrong.
  for i = 1, #words do
    if words[i] == "--" then break end
    if words[i] == "--help" or words[i] == "-h" then return { help = true } end
  end
  local flags = spellings(command)
  local result, given = {}, {}
  local i = 1
  while i <= #words do
    if words[i] == "--" then
      for k = i + 1, #words do given[#given + 1] = words[k] end
      break
    elseif is_flag(words[i]) then
      local read = words[i]:sub(2, 2) == "-" and read_long or read_short
      local last, err = read(command, flags, words, i, result)
      if not last then return nil, err end
      i = last
    else
      given[#given + 1] = words[i]
    end
    i = i + 1
  end
  local err = set_arguments(command, given, result)
  if err then return nil, err end
  return apply_types(command, result)
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
M.spellings = spellings
M.is_flag = is_flag
M.key_of = key_of

return M
