--- `mpreg run`: a whole pipeline.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local source = require "mpreg.cli.source"

local M = {}

M.command = {
  name = "run",
  usage = "PIPELINE [flags]",
  summary = "Run a pipeline.",
  description = "Runs a pipeline and prints its output.\n\nPIPELINE is a .lua file, a folder with "
    .. "a pipeline.lua, a .json graph (- reads one from stdin), or the name of a pipeline that the "
    .. "node has. On a terminal the run is drawn while it goes on, and its trace ends it.",
  examples = "  mpreg run examples/quakes --input '{\"min\": 2.5}' --trace\n"
    .. "  mpreg run graph.json -o json -t 30s",
  arguments = { { "PIPELINE", "What to run." } },
  flags = {
    { "--input", "JSON|@FILE|-", "The run's input: JSON, a file with JSON, or stdin." },
    { "--trace", false, "Also the levels: a bar each in time; with -o json every step's result." },
    { "--follow", false, "Print events as they happen, with --trace each step's result; with -o "
      .. "json one object a line." },
    { "--topic", "TOPIC", "Publish its events to this topic, too." },
    { "--detach", false, "Print the run's id and leave it running." },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Draws the run in place.
local function drawer(output, name)
  local native = require "mpreg.native"
  local progress = require "mpreg.render.progress"
  local screen = progress.new { name = name, width = output.width, color = output.color }
  local drawn_at = -math.huge
  local function on_event(bytes)
    screen:event(codec.decode(bytes))
    local now = native.now()
    if now - drawn_at < progress.REDRAW_S then return end
    drawn_at = now
    output:draw(screen:draw())
  end
  return on_event, function() output:draw(screen:erase()) end
end

local function name_of(run, opts)
  return type(run.name) == "string" and run.name or opts.name
end

local function print_run(run, output, opts)
  local has_output = run.status == "succeeded" and run.output ~= nil
  if has_output and opts.show then
    opts.show(run.output)
  elseif has_output then
    output:value(codec.encode(run.output))
  end
  if opts.trace then
    output:write(require "mpreg.render.trace".text(run,
      { width = output.width, color = output.color, name = name_of(run, opts) }))
  end
  if run.status ~= "succeeded" and type(run.error) == "table" then
    -- A run began: the exit code is the run's.
    output:fail(run.error)
  elseif run.status ~= "succeeded" then
    output:note("the run ended as " .. tostring(run.status))
  end
  return exit.of_run(run)
end

--- The run object: JSON as it came, or text.
local function finish(bytes, output, opts)
  local run = codec.decode(bytes)
  if type(run) ~= "table" then
    return output:fail { code = "INTERNAL", reason = "PROTOCOL", message = "no run came back" }
  end
  if output.json then
    -- Followers have had their last line.
    if opts.is_following then return exit.of_run(run) end
    local code = output:document(bytes)
    return code == exit.OK and exit.of_run(run) or code
  end
  return print_run(run, output, opts)
end

local function interrupted(err, partial, output, opts)
  local run = partial and codec.decode(partial)
  local receipts = type(run) == "table"
    and require "mpreg.render.runs".receipts(run.receipts) or ""
  if receipts ~= "" then output:note(receipts) end
  if output.json and partial then
    if not opts.is_following then output:document(partial) end
  else
    if type(run) == "table" and type(run.steps) == "table" and opts.trace then
      output:write(require "mpreg.render.trace".text(run,
        { width = output.width, color = output.color, name = name_of(run, opts) }))
    end
    output:fail(err)
  end
  return exit.of_error(err)
end

local function id_of(bytes)
  local run = bytes and codec.decode(bytes)
  return type(run) == "table" and type(run.run_id) == "string" and run.run_id or nil
end

--- Runs a payload and prints what comes of it.
---@param c table  a client
---@param payload string  MessagePack
---@param options { trace?: boolean, follow?: boolean, detach?: boolean, topic?: string,
---  timeout_ms?: number, show?: fun(value: any) }  show: prints the output instead
---@param output table
---@return number exit_code
---@return string? run_id  if it began
function M.execute(c, payload, options, output)
  local graph = codec.decode(payload)
  local name = type(graph) == "table" and graph.name
  local opts = {
    trace = options.trace or (output.can_draw and not options.follow),
    is_following = options.follow, show = options.show,
    name = type(name) == "string" and name or nil,
  }
  local on_event, done
  if options.follow then
    on_event, done = require "mpreg.cli.follow".new(output, { name = opts.name,
      trace = options.trace })
  elseif output.can_draw and not options.detach then
    on_event, done = drawer(output, opts.name)
  end
  local run, err, partial = c:run_bytes(payload, {
    timeout_ms = options.timeout_ms, trace = options.trace, detach = options.detach,
    follow = on_event and true or nil, topic = options.topic,
  }, on_event)
  if done then done() end
  if not run then
    if err.reason == "INTERRUPTED" then
      return interrupted(err, partial, output, opts), id_of(partial)
    end
    return output:fail(err)
  end
  if options.detach then
    if output.json then return output:document(run), id_of(run) end
    output:write(tostring(id_of(run)) .. "\n")
    return exit.OK, id_of(run)
  end
  return finish(run, output, opts), id_of(run)
end

--- What is wrong with the flags that run and resume have in common; nil if nothing is.
---@param options table
---@return table? ERROR
function M.contradiction(options)
  if options.detach and options.follow then
    return args.fault("--detach leaves the run alone, --follow watches it: not both")
  end
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local wrong = M.contradiction(options)
    or options.topic and args.topic_fault(options.topic) or nil
  if wrong then return output:fail(wrong) end
  if options.PIPELINE == "-" and options.input == "-" then
    return output:fail(args.fault("- stands for stdin, which can be read once"))
  end
  local input, payload, err
  input, err = source.input(options.input)
  if err then return output:fail(err) end
  payload, err = source.payload(options.PIPELINE, input)
  if not payload then return output:fail(err) end
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local code = M.execute(c, payload, {
    trace = options.trace, follow = options.follow, detach = options.detach,
    topic = options.topic, timeout_ms = left(),
  }, output)
  c:close()
  return code
end

return M
