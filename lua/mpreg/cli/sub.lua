--- `mpreg sub`: messages as they come.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local native = require "mpreg.native"
local text = require "mpreg.render.text"

local M = {}

M.command = {
  name = "sub",
  usage = "PATTERN [flags]",
  summary = "Print the messages of topics as they come.",
  description = "Prints each message whose topic matches, whatever node it was published to, "
    .. "until it is interrupted. In a PATTERN a word may be *, which is any word, or #, which is "
    .. "any number of words, also none, also in the middle; a shell wants quotes around it."
    .. "\n\nWhoever reads too slowly loses messages, and is told how many.",
  examples = "  mpreg sub 'quakes.#' --since 5m\n"
    .. "  mpreg sub 'quakes.*.strong' --count 1 -t 10s -o json",
  arguments = { { "PATTERN", "Which topics.", complete = false } },
  flags = {
    { "--count", "N", "End after so many messages.", type = args.integer(1, 2 ^ 53) },
    { "--since", "5m", "First the messages from so long ago on, as far as nodes have kept them "
      .. "(units ms s m h d, or a time: 2026-01-31T12:00:00Z, or Unix milliseconds).",
      type = args.since },
    { "-t --timeout", "5s", "Give up after so long (units ms s m h).", type = args.timeout },
    args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Prints batches as JSON, an object a line.
local function json_printer(output)
  local function quoted(s) return (assert(codec.json_encode(s))) end
  return {
    message = function(topic, seq, at, data, publisher)
      local value, problem = codec.msgpack_to_json(data)
      -- Not everything has a JSON form: NaN, infinities.
      local field = value and '"data":' .. value or '"error":' .. codec.json_encode({
        code = "INVALID_ARGUMENT", reason = "UNENCODABLE", message = problem and problem.message,
      }, { sort_keys = true })
      output:write(('{"topic":%s,%s,"publisher":%s,"seq":%.0f,"at":%.0f}\n'):format(
        quoted(topic), field, quoted(publisher), seq, at))
    end,
    dropped = function(count, publisher, after_seq)
      output:write(('{"dropped":%.0f,"publisher":%s,"after_seq":%.0f}\n'):format(count,
        quoted(publisher), after_seq))
    end,
  }
end

--- Prints batches for people: the topic and the data, a line each.
local function text_printer(output)
  local paint = text.painter(output.color)
  return {
    message = function(topic, _, _, data)
      local value = codec.msgpack_to_json(data, { sort_keys = true })
        or require "mpreg.render.value".text(codec.decode(data))
      if output.is_terminal then value = text.clean(value) end
      output:write(("%s %s\n"):format(paint("cyan", text.clean(topic)), value))
    end,
    dropped = function(count, publisher, after_seq)
      output:flush()
      output:note(("%.0f messages of %s were lost after its number %.0f: they came faster than "
        .. "they were read"):format(count, text.clean(publisher), after_seq))
    end,
  }
end

--- Passes a batch's messages on: whether there were as many as were wanted.
local function print_batch(printer, messages, publisher, state)
  local at, topic, seq, time, data = native.next_message(messages, 0)
  while at do
    printer.message(topic, seq, time, data, publisher)
    state.count = state.count + 1
    if state.count == state.wanted then return true end
    at, topic, seq, time, data = native.next_message(messages, at)
  end
  return false
end

local function fail(err, options, state, output)
  -- To be interrupted is how it is meant to end.
  if err.reason == "INTERRUPTED" then return exit.INTERRUPTED end
  if err.code == "DEADLINE_EXCEEDED" and options.timeout then
    err.message = ("%.0f messages came in %.0f ms"):format(state.count, options.timeout)
  end
  local code = output:fail(err)
  return code == exit.UNSERVED and state.is_subscribed and exit.FAILED or code
end

--- Subscribes on a connection, and prints what comes until that is enough.
---@param c table  a client
---@param options { PATTERN: string, count?: number, since?: number, timeout?: number }
---@param timeout_ms? number  what is left of the time
---@param output table
---@return number exit_code
function M.execute(c, options, timeout_ms, output)
  local printer = output.json and json_printer(output) or text_printer(output)
  local state = { count = 0, wanted = options.count }
  local ended, err = c:subscribe_bytes(options.PATTERN, {
    since_ms = options.since, timeout_ms = timeout_ms,
  }, function(event)
    local node = codec.decode(event).node
    state.is_subscribed = true
    output:note(("subscribed to %s at %s"):format(options.PATTERN, tostring(node)))
  end, function(messages, publisher, dropped, after_seq)
    if dropped > 0 then printer.dropped(dropped, publisher, after_seq) end
    local is_enough = print_batch(printer, messages, publisher, state)
    output:flush()
    return is_enough
  end)
  return ended and exit.OK or fail(err, options, state, output)
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local err = args.topic_fault(options.PATTERN, true)
  if err then return output:fail(err) end
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local code = M.execute(c, options, left(), output)
  c:close()
  return code
end

return M
