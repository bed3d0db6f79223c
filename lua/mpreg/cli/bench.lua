--- `mpreg bench`: how many calls or runs a node serves, or messages it delivers, and how fast.

local args = require "mpreg.cli.args"
local client = require "mpreg.client"
local exit = require "mpreg.cli.exit"

local M = {}

local CALL_TIMEOUT_MS = 30000
local DURATION_MS = 5000
local SIZE = 64

M.command = {
  name = "bench",
  usage = "call FUN [ARG…] | run PIPELINE | pub TOPIC [flags]",
  summary = "Measure calls, runs or topics.",
  description = "Keeps so many calls (or runs) outstanding for so long, and prints how many ended "
    .. "and how long they took.\n\nbench pub publishes in batches over one connection, as fast as "
    .. "the node accepts them, to subscribers with a connection each, all at the same node. It "
    .. "fails unless each of them gets all messages, in order, or is told how many it lost.",
  examples = "  mpreg bench call mpreg.echo hello -c 64 -d 10s\n"
    .. "  mpreg bench run graph.json -c 4 -d 5s -o json\n"
    .. "  mpreg bench pub bench.topic --subscribers 10 --pattern 'bench.#'",
  arguments = {
    { "WHAT", "call, run or pub.", complete = "call|run|pub" },
    { "TARGET", "A function, a pipeline as for mpreg run, or a topic.",
      complete = { call = "FUN", run = "PIPELINE" } },
    { "ARG", "The function's arguments, as for mpreg call.", count = "*" },
  },
  flags = {
    { "-c --outstanding", "N", "Requests outstanding at once, over all connections (1).",
      type = args.integer(1, 1000000) },
    { "-d --duration", "10s", "How long to measure (5s).", type = args.timeout },
    { "--connections", "N", "Connections that share them (1).", type = args.integer(1, 10000) },
    { "--rate", "R", "Requests a second to start, whether or not earlier ones have ended; "
      .. "messages a second to publish.", type = args.integer(1, 1000000000) },
    args.NEED,
    { "--version", "CONSTRAINT", "Of the module." },
    { "--on", "NODE", "The node that shall run the calls.", type = args.name },
    { "--input", "JSON|@FILE|-", "The runs' input." },
    { "--trace", false, "Runs that answer with their levels." },
    { "--follow", false, "Runs whose events are sent as they happen." },
    { "--subscribers", "N", "Subscribers of the messages (1).", type = args.integer(0, 4096) },
    { "--pattern", "PATTERN", "What they subscribe to (TOPIC).", complete = false },
    { "--size", "BYTES", "Of each message's data (64).", type = args.size },
    { "-t --timeout", "5s", "Deadline of each call (30s).", type = args.timeout },
    args.NODE, args.OUTPUT, args.HELP,
  },
}

local FIGURES = { "calls", "errors", "seconds", "calls_per_s", "p50_us", "p90_us", "p99_us",
  "p999_us", "max_us" }

local function print_text(figures, what, output)
  local noun = what == "run" and "runs" or "calls"
  output:write(("%d %s in %.2f s: %.0f a second, %d failed\n"):format(figures.calls, noun,
    figures.seconds, figures.calls_per_s, figures.errors))
  output:write(("p50 %.0f µs · p90 %.0f µs · p99 %.0f µs · p99.9 %.0f µs · max %.0f µs\n"):format(
    figures.p50_us, figures.p90_us, figures.p99_us, figures.p999_us, figures.max_us))
  if (figures.unsent or 0) > 0 then
    output:write(("%d were due but never sent: more outstanding ones are needed\n"):format(
      figures.unsent))
  end
  local names = {}
  for name in pairs(figures.errors_by or {}) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    output:write(("%8d  %s\n"):format(figures.errors_by[name], name))
  end
end

local PUB_FIGURES = { "published", "delivered", "dropped", "seconds", "published_per_s",
  "delivered_per_s", "p50_us", "p99_us" }
local PUB_FLAGS = { "subscribers", "pattern", "size" }
local CALL_FLAGS = { "outstanding", "connections", "need", "version", "on", "input", "trace",
  "follow" }

--- The ERROR of a flag that says nothing about what is measured.
local function stray_flag(options)
  for _, key in ipairs(options.WHAT == "pub" and CALL_FLAGS or PUB_FLAGS) do
    if options[key] ~= nil then
      return args.fault(("--%s means nothing to bench %s"):format(key, options.WHAT))
    end
  end
end

local function print_pub_text(figures, subscribers, output)
  output:write(("%.0f messages published in %.2f s: %.0f a second\n"):format(figures.published,
    figures.seconds, figures.published_per_s))
  output:write(("%.0f delivered to %.0f subscribers: %.0f a second, %.0f dropped\n"):format(
    figures.delivered, subscribers, figures.delivered_per_s, figures.dropped))
  output:write(("p50 %.0f µs · p99 %.0f µs\n"):format(figures.p50_us, figures.p99_us))
end

local function run_pub(options, output)
  local size = options.size or SIZE
  local err = args.topic_fault(options.TARGET)
    or args.topic_fault(options.pattern or options.TARGET, true)
    or #options.ARG > 0 and args.fault("bench pub takes a topic, and makes the messages itself")
    or size < 8 and args.fault("--size is at least 8: the time stands in the data") or nil
  if err then return output:fail(err) end
  local subscribers = options.subscribers or 1
  local figures
  figures, err = require "mpreg.native".bench_pub {
    nodes = client.nodes(options.node), topic = options.TARGET,
    pattern = options.pattern or options.TARGET, subscribers = subscribers, size = size,
    seconds = (options.duration or DURATION_MS) / 1000, rate = options.rate,
  }
  if not figures then return output:fail(client.to_error(err)) end
  if output.json then
    local document = {}
    for _, key in ipairs(PUB_FIGURES) do document[key] = figures[key] end
    output:document(require "mpreg.codec".encode(document))
  else
    print_pub_text(figures, subscribers, output)
  end
  if figures.interrupted then return exit.INTERRUPTED end
  return figures.published > 0 and exit.OK or exit.FAILED
end

local function request(options)
  if options.WHAT == "call" then
    local _, problem = args.function_name(options.TARGET)
    if problem then return nil, args.fault(problem) end
    local bytes, err = require "mpreg.cli.call".encode_args(options.ARG)
    if not bytes then return nil, err end
    if options.trace or options.follow then
      return nil, args.fault("--trace and --follow are for runs")
    end
    return { fun = options.TARGET, args = bytes }
  elseif options.WHAT ~= "run" then
    return nil, args.fault(("bench measures call, run or pub, not '%s'"):format(options.WHAT),
      "mpreg bench call mpreg.echo hello")
  elseif #options.ARG > 0 then
    return nil, args.fault("bench run takes one pipeline; its input is --input")
  end
  local source = require "mpreg.cli.source"
  local input, err = source.input(options.input)
  if err then return nil, err end
  local graph
  graph, err = source.payload(options.TARGET, input)
  if not graph then return nil, err end
  return { graph = graph }
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local stray = stray_flag(options)
  if stray then return output:fail(stray) end
  if options.WHAT == "pub" then return run_pub(options, output) end
  local bench, err = request(options)
  if not bench then return output:fail(err) end
  bench.nodes = client.nodes(options.node)
  bench.outstanding = options.outstanding or 1
  bench.connections = options.connections or 1
  bench.seconds = (options.duration or DURATION_MS) / 1000
  bench.rate = options.rate
  bench.options = { timeout_ms = options.timeout or CALL_TIMEOUT_MS, needs = options.need,
    version = options.version, on = options.on, trace = options.trace, follow = options.follow }
  if bench.connections > bench.outstanding then
    return output:fail(args.fault(("%d connections cannot share %d outstanding requests"):format(
      bench.connections, bench.outstanding)))
  end
  local figures
  figures, err = require "mpreg.native".bench(bench)
  if not figures then return output:fail(client.to_error(err)) end
  if output.json then
    local document = {}
    for _, key in ipairs(FIGURES) do document[key] = figures[key] end
    document.unsent = options.rate and figures.unsent
    document.errors_by = next(figures.errors_by or {}) and figures.errors_by or nil
    output:document(require "mpreg.codec".encode(document))
  else
    print_text(figures, options.WHAT, output)
  end
  if figures.interrupted then return exit.INTERRUPTED end
  return figures.calls > 0 and exit.OK or exit.FAILED
end

return M
