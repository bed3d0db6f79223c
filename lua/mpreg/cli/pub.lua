--- `mpreg pub`: one message, or one for each line.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local json = require "mpreg.cli.json"

local M = {}

local BATCH_BYTES = 65536 -- read at once, and published as one
local LINE_BYTES_MAX = 64 * 2 ^ 20

M.command = {
  name = "pub",
  usage = "TOPIC [JSON] [flags]",
  summary = "Publish messages to a topic.",
  description = "Publishes a message to a topic, and ends once the node has accepted it. Whoever "
    .. "subscribes to a pattern that matches, on any node, gets it at most once.\n\nA TOPIC is "
    .. "words of letters, digits, _ and -, joined by dots. JSON that is valid is that value, @FILE "
    .. "is the file's JSON, - is the JSON on stdin; anything else is a string. Without it the "
    .. "message is null. With --lines each line of stdin is a message: JSON if it is valid, else a "
    .. "string.",
  examples = "  mpreg pub quakes.chile.strong '{\"mag\": 6.1}'\n"
    .. "  tail -f app.log | mpreg pub logs.app --lines",
  arguments = {
    { "TOPIC", "Where to." },
    { "JSON", "The message's data.", count = "?", complete = "ARG" },
  },
  flags = {
    { "--lines", false, "Each line of stdin is a message; lines that come together are published "
      .. "together." },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

local function array(parts) return require "mpreg.cli.call".array(parts) end

local has_declared = false

--- What there is on stdin, without waiting for more than that; nil at its end.
local function reader()
  local ffi = require "ffi"
  if not has_declared then
    ffi.cdef "long read(int fd, void *to, size_t size);"
    has_declared = true
  end
  local room = ffi.new("char[?]", BATCH_BYTES)
  return function()
    local size = tonumber(ffi.C.read(0, room, BATCH_BYTES))
    return size > 0 and ffi.string(room, size) or nil
  end
end

--- Lines as they come, in lists; the last one may lack its end.
local function line_lists(read)
  local rest, is_over = "", false
  return function()
    while not is_over do
      local chunk = read()
      is_over = chunk == nil
      local text = rest .. (chunk or "")
      local list = {}
      local from = 1
      for line, next_from in text:gmatch("([^\n]*)\n()") do
        list[#list + 1] = line
        from = next_from
      end
      rest = text:sub(from)
      if is_over and rest ~= "" then list[#list + 1] = rest end
      if #rest > LINE_BYTES_MAX then
        return nil, { code = "RESOURCE_EXHAUSTED", reason = "TOO_LARGE",
          message = "a line is longer than 64 MiB" }
      end
      if #list > 0 then return list end
    end
  end
end

--- Publishes lines: what the node said at last, and how many there were.
local function publish_lines(c, topic, left)
  local next_list = line_lists(reader())
  local accepted, count = nil, 0
  while true do
    local lines, err = next_list()
    if not lines then return accepted, count, err end
    local messages = {}
    for i, line in ipairs(lines) do
      messages[i] = array { topic, codec.json_to_msgpack(line) or codec.encode(line) }
    end
    local answer
    answer, err = c:publish_bytes(array(messages), { timeout_ms = left() })
    if not answer then return accepted, count, err end
    accepted = codec.decode(answer)
    count = count + #lines
  end
end

local function run_lines(options, topic, output)
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local accepted, count, err = publish_lines(c, topic, left)
  c:close()
  if err then
    if count > 0 then err.attempt = 1 end -- some of them are published
    return output:fail(err)
  end
  if output.json then
    return output:document(codec.encode { count = count, seq = accepted and accepted.seq,
      publisher = accepted and accepted.publisher })
  end
  return exit.OK
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local err = args.topic_fault(options.TOPIC)
  if err then return output:fail(err) end
  local topic = codec.encode(options.TOPIC)
  if options.lines then
    if options.JSON then
      return output:fail(args.fault("--lines reads the messages from stdin: JSON has no place"))
    end
    return run_lines(options, topic, output)
  end
  local data
  data, err = json.argument(options.JSON or "null", "the message")
  if not data then return output:fail(err) end
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local accepted
  accepted, err = c:publish_bytes(array { array { topic, data } }, { timeout_ms = left() })
  c:close()
  if not accepted then return output:fail(err) end
  if output.json then return output:document(accepted) end
  return exit.OK
end

return M
