--- `mpreg trace`: what happened in a run, or happens in one that goes on.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local recorded = require "mpreg.cli.recorded"

local M = {}

M.command = {
  name = "trace",
  usage = "RUN [flags]",
  summary = "Show what happened in a run.",
  description = "Shows a run level by level, one that goes on as far as it has come. With --follow "
    .. "its events from the first one on, those to come as they happen, and then its trace; Ctrl-C "
    .. "ends the watching, not the run. Any node can be asked.",
  examples = "  mpreg trace last\n  mpreg trace last --follow\n"
    .. "  mpreg trace 01KB6QJ0V8XK3M2R7T9C4D5E6F --result events > events.json",
  arguments = { recorded.ARGUMENT },
  flags = {
    { "--follow", false, "Print its events; with -o json one object a line." },
    { "--result", "STEP", "Print the result of this step, whole.", type = args.name },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Prints the trace of a run object.
---@param run table
---@param output table
function M.show(run, output)
  output:write(require "mpreg.render.trace".text(run, { width = output.width, color = output.color,
    name = type(run.name) == "string" and run.name or nil }))
end

--- What stands for the events of a run whose events are gone: how it ended, without `seq`.
local function last_event(run)
  local summary = type(run.summary) == "table" and run.summary or nil
  return { event = "run_finished", run_id = run.run_id, at_ms = summary and summary.total_ms,
    status = run.status, output = run.output, error = run.error, summary = summary }
end

--- Follows a run on a connection, to its end.
---@param ask fun(on_event: fun(event: string)): string?, table?  asks to watch
---@param output table
---@return number exit_code
function M.follow(ask, output)
  local on_event, done = require "mpreg.cli.follow".new(output, {})
  local has_begun = false
  local answer, err = ask(function(event)
    has_begun = true
    on_event(event)
  end)
  done()
  if not answer then
    if err.reason == "INTERRUPTED" then err.hint = "the run goes on; mpreg cancel ends it" end
    output:fail(err)
    -- What was being watched had begun.
    return has_begun and exit.of_error(err) or exit.of_question(err)
  end
  local run = codec.decode(answer)
  if not output.json then
    M.show(run, output)
  elseif not has_begun then
    output:document(codec.encode(last_event(run)))
  end
  return exit.of_run(run)
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  if options.follow and options.result then
    return output:fail(args.fault("--follow prints events, --result one result: not both"))
  end
  if options.follow then
    return M.follow(function(on_event)
      return recorded.ask(options, "watch", { on_event = on_event })
    end, output)
  end
  local answer, err = recorded.ask(options, options.result and "result" or "trace",
    { options = { step = options.result } })
  if not answer then
    output:fail(err)
    return exit.of_question(err)
  end
  if output.json then return output:document(answer) end
  if options.result then
    output:value(answer)
  else
    M.show(codec.decode(answer), output)
  end
  return exit.OK
end

return M
