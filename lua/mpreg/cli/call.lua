--- `mpreg call`: one function, once.

local args = require "mpreg.cli.args"
local exit = require "mpreg.cli.exit"

local M = {}

M.command = {
  name = "call",
  usage = "FUN [ARG…] [flags]",
  summary = "Call a function and print its result.",
  description = "Calls a function and prints its result. It runs where the function and all the "
    .. "resources that it needs are.\n\nAn ARG that is valid JSON is that "
    .. "value, @FILE is the file's JSON, - is the JSON on stdin; anything else is a string. What "
    .. "begins with {, [ or \" must be valid JSON.",
  examples = "  mpreg call mpreg.echo '{\"x\": 1}'\n"
    .. "  mpreg call quakes.load week.json --need catalogue -t 5s -o json\n"
    .. "  mpreg call mpreg.node --on n2\n"
    .. "  mpreg call train.fit @set.json --need gpu --need ds2 --version ^1.2 --wait --retries 2",
  arguments = {
    { "FUN", "The function: module.function.", type = args.function_name },
    { "ARG", "Its arguments.", count = "*" },
  },
  flags = {
    args.NEED,
    { "--version", "CONSTRAINT", "Of the module: =1.2.3 >=1.0 <2 ^1.2 ~1.2.3, joined by commas." },
    { "--cluster", "ID", "The cluster that shall run it.", type = args.name },
    { "--on", "NODE", "The node that shall run it.", type = args.name },
    { "--retries", "N", "How often to try again.", type = args.integer(0, 1000) },
    { "--wait", false, "Queue for a node that can serve it instead of failing at once." },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- MessagePack of the list of arguments.
local function encode_args(words)
  local parts = {}
  local stdin_count = 0
  for i, word in ipairs(words) do
    if word == "-" then stdin_count = stdin_count + 1 end
    if stdin_count > 1 then return nil, args.fault("- stands for stdin, which can be read once") end
    local bytes, err = require "mpreg.cli.json".argument(word, ("argument %d"):format(i))
    if not bytes then return nil, err end
    parts[i] = bytes
  end
  return M.array(parts)
end

--- MessagePack of an array of elements that are MessagePack already.
---@param parts string[]
---@return string
function M.array(parts)
  local n = #parts
  local head
  if n < 16 then
    head = string.char(0x90 + n)
  elseif n < 65536 then
    head = string.char(0xdc, math.floor(n / 256), n % 256)
  else
    head = string.char(0xdd, math.floor(n / 2 ^ 24), math.floor(n / 65536) % 256,
      math.floor(n / 256) % 256, n % 256)
  end
  return head .. table.concat(parts)
end

M.encode_args = encode_args

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local bytes, err = encode_args(options.ARG)
  if not bytes then return output:fail(err) end
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local result
  result, err = c:call_bytes(options.FUN, bytes, {
    timeout_ms = left(), needs = options.need, version = options.version,
    cluster = options.cluster, on = options.on, retries = options.retries, wait = options.wait,
  })
  c:close()
  if not result then return output:fail(err) end
  if output.json then return output:document(result) end
  output:value(result)
  return exit.OK
end

return M
