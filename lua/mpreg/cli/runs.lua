--- `mpreg runs`: the runs that nodes have coordinated, those that go on among them.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local recorded = require "mpreg.cli.recorded"

local M = {}

local LIMIT = 20
local LIMIT_MAX = 100000
local STATUSES = { "running", "succeeded", "failed", "cancelled", "timed_out", "lost" }

M.command = {
  name = "runs",
  usage = "[flags]",
  summary = "List the runs that nodes keep.",
  description = "Lists runs, the newest first: those that go on, and those that the nodes which "
    .. "coordinated them still keep. Every node that is alive is asked; one that does not answer "
    .. "is named on stderr. STATUS lost: its node ended in the middle of it.",
  examples = "  mpreg runs\n  mpreg runs --status failed --limit 5 -o json",
  flags = {
    { "--limit", "N", ("List so many runs; %d without it."):format(LIMIT),
      type = args.integer(1, LIMIT_MAX) },
    { "--status", table.concat(STATUSES, "|"), "List only runs of this status.",
      type = args.choice(STATUSES) },
    { "--on", "NODE", "List the runs of this node alone.", type = args.name },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- The first runs of a status.
local function pick(runs, status, limit)
  local list = codec.array {}
  for _, run in ipairs(runs) do
    if #list < limit and (not status or run.status == status) then list[#list + 1] = run end
  end
  return list
end

local function gather(options, limit)
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return nil, left end
  local merged, err = recorded.gather(c, { on = options.on, timeout_ms = left(),
    -- Of another status there may be any number before.
    limit = not options.status and limit or nil })
  c:close()
  return merged, err
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local limit = options.limit or LIMIT
  local merged, err = gather(options, limit)
  if not merged then
    output:fail(err)
    return exit.of_question(err)
  end
  for _, silent in ipairs(merged.silent) do
    output:note(("no answer from %s: %s"):format(silent.node,
      tostring(silent.error and silent.error.message or "its answer cannot be read")))
  end
  local runs = pick(merged.runs, options.status, limit)
  if output.json then
    return output:document(assert(codec.encode { runs = runs, dropped = merged.dropped }))
  end
  if #runs == 0 then
    output:note(options.status and ("no run is " .. options.status) or "no runs")
    return exit.OK
  end
  output:write(require "mpreg.render.runs".table(runs,
    { width = output.width, color = output.color }))
  return exit.OK
end

return M
