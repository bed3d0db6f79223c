--- `mpreg bench`: how many calls or runs a node serves, and how fast.

local args = require "mpreg.cli.args"
local client = require "mpreg.client"
local exit = require "mpreg.cli.exit"

local M = {}

local CALL_TIMEOUT_MS = 30000
local DURATION_MS = 5000

M.command = {
  name = "bench",
  usage = "call FUN [ARG…] | run PIPELINE [flags]",
  summary = "Measure calls or runs.",
  description = "Keeps so many calls (or runs) outstanding for so long, and prints how many ended "
    .. "and how long they took.",
  examples = "  mpreg bench call mpreg.echo hello -c 64 -d 10s\n"
    .. "  mpreg bench run graph.json -c 4 -d 5s -o json",
  arguments = {
    { "WHAT", "call or run.", complete = "call|run" },
    { "TARGET", "A function, or a pipeline as for mpreg run.",
      complete = { call = "FUN", run = "PIPELINE" } },
    { "ARG", "The function's arguments, as for mpreg call.", count = "*" },
  },
  flags = {
    { "-c --outstanding", "N", "Requests outstanding at once, over all connections (1).",
      type = args.integer(1, 1000000) },
    { "-d --duration", "10s", "How long to measure (5s).", type = args.timeout },
    { "--connections", "N", "Connections that share them (1).", type = args.integer(1, 10000) },
    { "--rate", "R", "Requests a second to start, whether or not earlier ones have ended.",
      type = args.integer(1, 1000000000) },
    args.NEED,
    { "--version", "CONSTRAINT", "Of the module." },
    { "--on", "NODE", "The node that shall run the calls.", type = args.name },
    { "--input", "JSON|@FILE|-", "The runs' input." },
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

local function request(options)
  if options.WHAT == "call" then
    local _, problem = args.function_name(options.TARGET)
    if problem then return nil, args.fault(problem) end
    local bytes, err = require "mpreg.cli.call".encode_args(options.ARG)
    if not bytes then return nil, err end
    return { fun = options.TARGET, args = bytes }
  elseif options.WHAT ~= "run" then
    return nil, args.fault(("bench measures call or run, not '%s'"):format(options.WHAT),
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
  local bench, err = request(options)
  if not bench then return output:fail(err) end
  bench.nodes = client.nodes(options.node)
  bench.outstanding = options.outstanding or 1
  bench.connections = options.connections or 1
  bench.seconds = (options.duration or DURATION_MS) / 1000
  bench.rate = options.rate
  bench.options = { timeout_ms = options.timeout or CALL_TIMEOUT_MS, needs = options.need,
    version = options.version, on = options.on }
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
