--- `mpreg topology`: who is linked to whom.
---
--- One node is asked who there is, and then to pass one question on to each that lives: they all
--- travel at once on one connection.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local links = require "mpreg.cli.links"

local M = {}

-- A node that just died is passed over before anybody gives up waiting for the whole.
local LINKS_TIMEOUT_MS = 5000

M.command = {
  name = "topology",
  usage = "[flags]",
  summary = "Show which nodes are linked.",
  description = "Shows the nodes and the connections between them. A link that both its ends tell "
    .. "of is one; a node that cannot be asked is marked unreachable.",
  examples = "  mpreg topology\n  mpreg topology --format dot | dot -Tsvg > cluster.svg",
  flags = {
    { "--format", "text|dot", "Text, or a graph for Graphviz; -o json gives JSON.",
      type = args.choice { "text", "dot" } },
    args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
  },
}

--- Asks everybody: a topology, or nil and an ERROR.
local function gather(options)
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return nil, left end
  local answer, err = c:query_bytes("nodes", nil, { timeout_ms = left() })
  local answers
  if answer then
    local nodes = codec.decode(answer).nodes
    answers, err = c:query_nodes_bytes("links", links.to_ask(nodes),
      { timeout_ms = math.min(left() or LINKS_TIMEOUT_MS, LINKS_TIMEOUT_MS) })
    if answers then
      for _, told in pairs(answers) do
        if told.answer then told.links = codec.decode(told.answer).links end
      end
      answer = links.merge(nodes, answers)
    end
  end
  c:close()
  return answers and answer, err
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  if output.json and options.format then
    return output:fail(args.fault(("-o json and --format %s contradict each other"):format(
      options.format)))
  end
  local merged, err = gather(options)
  if not merged then return output:fail(err) end
  if output.json then return output:document(assert(codec.encode(merged))) end
  local render = require "mpreg.render.topology"
  output:write(render[options.format or "text"](merged,
    { width = output.width, color = output.color }))
  return exit.OK
end

return M
