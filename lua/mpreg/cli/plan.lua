--- `mpreg plan`: checks a pipeline against the live cluster and shows how it would run.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local source = require "mpreg.cli.source"

local M = {}

M.command = {
  name = "plan",
  usage = "PIPELINE [flags]",
  summary = "Check a pipeline and show how it would run.",
  description = "Checks a pipeline against the live cluster and shows its levels and the node that "
    .. "each step would go to. Runs nothing.\n\nPIPELINE is as for mpreg run.",
  examples = "  mpreg plan examples/quakes\n"
    .. "  mpreg plan graph.json --format mermaid > plan.mmd",
  arguments = { { "PIPELINE", "What to plan." } },
  flags = {
    { "--format", "text|dot|mermaid|json", "The plan's form; -o json is --format json.",
      type = args.choice { "text", "dot", "mermaid", "json" } },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local format = options.format or options.output or "text"
  if options.output == "json" and format ~= "json" then
    return output:fail(args.fault(("-o json and --format %s contradict each other"):format(format)))
  end
  if format == "json" and not output.json then
    output = require "mpreg.cli.output".new { json = true }
  end
  local payload, err = source.payload(options.PIPELINE)
  if not payload then return output:fail(err) end
  local answer
  answer, err = require "mpreg.cli.connection".ask(options, "plan", payload)
  if not answer then return output:fail(err) end
  if format == "json" then return output:document(answer) end
  local plan = codec.decode(answer)
  local render = require "mpreg.render.plan"
  output:write(render[format](plan, { width = output.width, color = output.color }))
  return exit.OK
end

return M
