--- `mpreg resume`: a new run that goes on where another one ended.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local recorded = require "mpreg.cli.recorded"

local M = {}

M.command = {
  name = "resume",
  usage = "RUN [flags]",
  summary = "Run again what had not succeeded in a run.",
  description = "Begins a run that keeps the results of the steps which succeeded in another one, "
    .. "and runs the rest with the code that is live now. It prints what run prints. It is "
    .. "refused, and nothing runs, if that run succeeded or goes on, or if its graph has another "
    .. "shape now.",
  examples = "  mpreg resume last --trace\n  mpreg resume last --from strong",
  arguments = { recorded.ARGUMENT },
  flags = {
    { "--from", "STEP", "Run this step again, and what depends on it, though they succeeded.",
      type = args.name },
    { "--trace", false, "Also the levels: a bar each in time; with -o json every step's result." },
    { "--follow", false, "Print events as they happen; with -o json one object a line." },
    { "--detach", false, "Print the new run's id and leave it running." },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- The payload of a RUN that resumes a run.
---@param id string
---@param from? string
---@return string
function M.payload(id, from)
  return (assert(codec.encode { resume = id, from = from }))
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local run = require "mpreg.cli.run"
  local wrong = run.contradiction(options)
  if wrong then return output:fail(wrong) end
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local id, err = recorded.resolve(c, options.RUN, left)
  local code
  if id then
    code = run.execute(c, M.payload(id, options.from), {
      trace = options.trace, follow = options.follow, detach = options.detach,
      timeout_ms = left(),
    }, output)
  else
    code = output:fail(err)
  end
  c:close()
  return code
end

return M
