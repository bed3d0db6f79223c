--- `mpreg modules`: whose functions they are.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local text = require "mpreg.render.text"

local M = {}

local HASH_DIGITS = 12
local NODES_MAX = 3 -- named; of the others the number

M.command = {
  name = "modules",
  usage = "[flags]",
  summary = "List the modules and pipelines.",
  description = "Lists modules with their versions, and pipelines, and where they came from: "
    .. "deployed to the cluster, or loaded by a node. NOTE: live, what calls are served with; "
    .. "shadowed, loaded by a node but hidden by a deployed one; differs, nodes have other bytes "
    .. "under the same name and version; overtaken, a deploy of the last day lost against a later "
    .. "one that did not know of it.",
  examples = "  mpreg modules\n  mpreg modules -o json",
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP },
}

local function notes(module)
  local list = {}
  if module.live == true then list[#list + 1] = "live" end
  if module.shadowed == true then list[#list + 1] = "shadowed" end
  if module.differs == true then list[#list + 1] = "differs" end
  if module.overtaken == true then list[#list + 1] = "overtaken" end
  return table.concat(list, ", ")
end

--- A row for each module, then one for each pipeline if there are any.
---@param listed table  the answer
---@param opts? { width?: number, color?: boolean }
---@return string
function M.text(listed, opts)
  local render = require "mpreg.render.table".render
  local rows = {}
  for i, module in ipairs(listed.modules) do
    rows[i] = { module.name, module.version, tostring(module.hash or ""):sub(1, HASH_DIGITS),
      module.origin, text.few(module.nodes or {}, NODES_MAX), notes(module) }
  end
  local out = render({
    { title = "MODULE" }, { title = "VERSION" }, { title = "HASH" }, { title = "ORIGIN" },
    { title = "NODES" }, { title = "NOTE" },
  }, rows, opts)
  if #(listed.pipelines or {}) == 0 then return out end
  rows = {}
  for i, pipeline in ipairs(listed.pipelines) do
    rows[i] = { pipeline.name, tostring(pipeline.hash or ""):sub(1, HASH_DIGITS), pipeline.origin,
      text.few(pipeline.nodes or {}, NODES_MAX), notes(pipeline) }
  end
  return out .. "\n" .. render({
    { title = "PIPELINE" }, { title = "HASH" }, { title = "ORIGIN" }, { title = "NODES" },
    { title = "NOTE" },
  }, rows, opts)
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local answer, err = require "mpreg.cli.connection".ask(options, "modules")
  if not answer then return output:fail(err) end
  if output.json then return output:document(answer) end
  output:write(M.text(codec.decode(answer), { width = output.width, color = output.color }))
  return exit.OK
end

return M
