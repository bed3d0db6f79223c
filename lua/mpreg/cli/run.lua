--- `mpreg run`: a whole pipeline.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local json = require "mpreg.cli.json"
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
    { "--follow", false, "Print events as they happen; with -o json one object a line." },
    { "--detach", false, "Print the run's id and leave it running." },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Prints events as they come.
local function follower(output)
  if output.json then
    return function(bytes)
      output:write((assert(json.encode(bytes))) .. "\n")
      output:flush()
    end
  end
  local line_of = require "mpreg.render.progress".event_line
  return function(bytes)
    output:write(line_of(codec.decode(bytes), { color = output.color }) .. "\n")
    output:flush()
  end
end

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
    io.stderr:write(screen:draw())
    io.stderr:flush()
  end
  return on_event, function()
    io.stderr:write(screen:erase())
    io.stderr:flush()
  end
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
      { width = output.width, color = output.color, name = opts.name }))
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
  if output.json and partial then
    if not opts.is_following then output:document(partial) end
  else
    local run = partial and codec.decode(partial)
    if type(run) == "table" and type(run.steps) == "table" and opts.trace then
      output:write(require "mpreg.render.trace".text(run,
        { width = output.width, color = output.color, name = opts.name }))
    end
    output:fail(err)
  end
  return exit.of_error(err)
end

--- Runs a payload and prints what comes of it.
---@param c table  a client
---@param payload string  MessagePack
---@param options { trace?: boolean, follow?: boolean, detach?: boolean, timeout_ms?: number,
---  show?: fun(value: any) }  show: prints the output instead
---@param output table
---@return number exit_code
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
    on_event = follower(output)
  elseif output.can_draw and not options.detach then
    on_event, done = drawer(output, opts.name)
  end
  local run, err, partial = c:run_bytes(payload, {
    timeout_ms = options.timeout_ms, trace = options.trace, detach = options.detach,
    follow = on_event and true or nil,
  }, on_event)
  if done then done() end
  if not run then
    if err.reason == "INTERRUPTED" then return interrupted(err, partial, output, opts) end
    return output:fail(err)
  end
  if options.detach then
    if output.json then return output:document(run) end
    output:write(tostring(codec.decode(run).run_id) .. "\n")
    return exit.OK
  end
  return finish(run, output, opts)
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  if options.detach and options.follow then
    return output:fail(args.fault("--detach leaves the run alone, --follow watches it: not both"))
  end
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
    trace = options.trace, follow = options.follow, detach = options.detach, timeout_ms = left(),
  }, output)
  c:close()
  return code
end

return M
