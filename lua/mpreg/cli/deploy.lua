--- `mpreg deploy`: new code on all nodes at once, while they serve.

local args = require "mpreg.cli.args"
local change = require "mpreg.cli.change"
local unit = require "mpreg.unit"

local M = {}

local NODES_MAX = 64 -- that --only or --skip name

--- A hash's beginning, or "none".
local function hash(text)
  local is_hash = text:find("^%x+$") and #text >= 8 and #text <= 64
  if not is_hash and text ~= "none" then
    return nil, ("'%s' is no hash: give at least 8 of its hex digits, or none"):format(text)
  end
  return text:lower()
end

M.command = {
  name = "deploy",
  usage = "FILE|DIR… [flags]",
  summary = "Deploy modules to all nodes while they serve.",
  description = "Deploys modules and pipelines: every node that is alive loads them beside those "
    .. "that run, then all switch at once. If one cannot, nothing changes anywhere. What runs "
    .. "goes on with the version that it began with.\n\nA module's name is its file's name "
    .. "without .lua; in a folder, the path from that folder with dots. Folders called spec and "
    .. "files that end in _spec.lua are passed over.\n\nThe same version with other content is "
    .. "refused, and a lower version, save with --force.",
  examples = "  mpreg deploy quakes.lua\n"
    .. "  mpreg deploy examples/quakes --expect 3fa9c1d2\n"
    .. "  mpreg deploy quakes.lua --only n3\n"
    .. "  mpreg deploy examples/quakes --watch",
  arguments = { { "FILE|DIR", "Module files, or folders of them.", count = "+" } },
  flags = {
    { "--expect", "HASH", "Only if this is live now: 8 or more digits of its hash; none: if "
      .. "nothing is.", type = hash },
    { "--only", "NODE", "Only on this node, as a trial; repeatable.", many = NODES_MAX,
      type = args.name },
    { "--skip", "NODE", "On all nodes but this one; repeatable.", many = NODES_MAX,
      type = args.name },
    { "--force", false, "Also a version that was used before, or a lower one." },
    { "--watch", false, "Deploy again on each save, until Ctrl-C; implies --force." },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- What a node is told besides the unit.
---@param options table  of the command line
---@return table
function M.query_options(options)
  return { expect = options.expect, only = options.only, skip = options.skip,
    force = options.force }
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  if options.only and options.skip then
    return output:fail(args.fault("--only names the nodes, --skip all others: not both"))
  end
  if options.watch and options.expect then
    return output:fail(args.fault("--expect is for one deploy, --watch makes many: not both"))
  end
  local paths = options["FILE|DIR"]
  if options.watch then return require "mpreg.cli.watch".run(paths, options, output) end
  local modules, err = unit.collect(paths)
  if not modules then return output:fail(err) end
  err = unit.check(modules)
  if err then return change.fail(err, output) end
  return change.run(options, "deploy",
    { options = M.query_options(options), payload = unit.encode(modules) }, output)
end

return M
