--- `mpreg functions`: what can be called.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local text = require "mpreg.render.text"

local M = {}

local NODES_MAX = 3 -- named; of the others the number

M.command = {
  name = "functions",
  usage = "[PATTERN] [flags]",
  summary = "List the functions that can be called.",
  description = "Lists functions, their parameters and where they are.\n\nPATTERN is a part of the "
    .. "name, or has * for anything and ? for a character.",
  examples = "  mpreg functions 'quakes.*'\n  mpreg functions -o json",
  arguments = { { "PATTERN", "Only functions whose name matches.", count = "?" } },
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

--- Does a name match the pattern of the command line?
---@param name string
---@param pattern? string
---@return boolean
function M.matches(name, pattern)
  if not pattern then return true end
  if not pattern:find("[*?]") then return name:find(pattern, 1, true) ~= nil end
  local lua = pattern:gsub("[%^%$%(%)%%%.%[%]%+%-]", "%%%0"):gsub("%*", ".*"):gsub("%?", ".")
  return name:find("^" .. lua .. "$") ~= nil
end

--- How a function is written: `filter(events, min) → table[]`.
---@param fun table
---@return string
function M.signature(fun)
  local params = {}
  for i, param in ipairs(fun.params or {}) do params[i] = tostring(param.name) end
  local out = ("%s(%s)"):format(fun.name, table.concat(params, ", "))
  if type(fun.returns) == "string" and fun.returns ~= "" then out = out .. " → " .. fun.returns end
  return out
end

--- What stands of a function's help text on one line.
---@param doc any
---@return string
function M.first_sentence(doc)
  if type(doc) ~= "string" then return "" end
  local paragraph = (doc .. "\n\n"):match("^%s*(.-)%s*\n%s*\n"):gsub("%s+", " ")
  return paragraph:match("^(.-[.!?]) %u") or paragraph
end

--- The functions of an answer whose name matches.
---@param functions table[]
---@param pattern? string
---@return table[]
function M.matching(functions, pattern)
  local found = codec.array {}
  for _, fun in ipairs(functions) do
    if M.matches(fun.name, pattern) then found[#found + 1] = fun end
  end
  return found
end

--- A row for each function.
---@param functions table[]
---@param opts? { width?: number, color?: boolean }
---@return string
function M.text(functions, opts)
  local rows = {}
  for i, fun in ipairs(functions) do
    rows[i] = { M.signature(fun), fun.version, text.few(fun.nodes or {}, NODES_MAX),
      table.concat(fun.needs or {}, ", "), M.first_sentence(fun.doc) }
  end
  return require "mpreg.render.table".render({
    { title = "FUNCTION" }, { title = "VERSION" }, { title = "NODES" }, { title = "NEEDS" },
    { title = "DOC" },
  }, rows, opts)
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = require "mpreg.cli.connection".ask(options, "functions")
  if not answer then return output:fail(err) end
  if output.json and not options.PATTERN then return output:document(answer) end
  local found = M.matching(codec.decode(answer).functions, options.PATTERN)
  if output.json then return output:document(codec.encode { functions = found }) end
  if #found == 0 then
    output:note "no functions"
    return exit.OK
  end
  output:write(M.text(found, { width = output.width, color = output.color }))
  return exit.OK
end

return M
