--- `mpreg why`: in words, where a run's time went, and what led to its failure.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local recorded = require "mpreg.cli.recorded"

local M = {}

M.command = {
  name = "why",
  usage = "RUN [flags]",
  summary = "Say why a run took so long, or why it failed.",
  description = "Says in words what a run waited for: its critical path, how much of each step was "
    .. "waiting for a worker, network, execution, retries, which step to make faster first and "
    .. "what that would win at most. Of a run that failed, the chain from the symptom to its "
    .. "cause, with node, file and line, and what to do.",
  examples = "  mpreg why last\n  mpreg why 01KB6QJ0V8XK3M2R7T9C4D5E6F -o json",
  arguments = { recorded.ARGUMENT },
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

--- The document: lists stay lists when they are empty, what is unknown is null.
local function document(answer)
  local function known(value)
    if value == nil then return codec.null end
    return value
  end
  return { run_id = answer.run_id, status = answer.status, cause = known(answer.cause),
    step = known(answer.step), sentences = codec.array(answer.sentences),
    path = codec.array(answer.path), win = known(answer.win), chain = codec.array(answer.chain) }
end

--- Prints why a run object is as it is.
---@param run table
---@param output table
---@return number exit_code
function M.show(run, output)
  local answer = require "mpreg.why".of(run)
  if output.json then return output:document(assert(codec.encode(document(answer)))) end
  local text = require "mpreg.render.text"
  for _, sentence in ipairs(answer.sentences) do
    for _, line in ipairs(text.wrap(text.clean(sentence), output.width)) do
      output:write(line .. "\n")
    end
  end
  return exit.OK
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = recorded.ask(options, "trace")
  if not answer then
    output:fail(err)
    return exit.of_question(err)
  end
  return M.show(codec.decode(answer), output)
end

return M
