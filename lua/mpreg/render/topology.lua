--- Nodes and their links: as a table, or for Graphviz.

local members = require "mpreg.render.members"
local table_render = require "mpreg.render.table"
local text = require "mpreg.render.text"

local M = {}

local function rtt(link)
  return type(link.rtt_ms) == "number" and ("%.1f ms"):format(link.rtt_ms) or ""
end

--- The links of each node, seen from it.
local function by_node(topology)
  local ends = {}
  local function add(from, to, link)
    ends[from] = ends[from] or {}
    table.insert(ends[from], { to = to, link = link })
  end
  for _, link in ipairs(topology.links) do
    add(link.source, link.target, link)
    add(link.target, link.source, link)
  end
  for _, list in pairs(ends) do
    table.sort(list, function(a, b) return a.to < b.to end)
  end
  return ends
end

local function note(node)
  local list = {}
  if node.unreachable then
    local err = node.error
    list[1] = "unreachable"
    if type(err) == "table" then
      list[1] = ("unreachable (%s)"):format(tostring(err.reason or err.code))
    end
  end
  if node.via then list[#list + 1] = "via " .. node.via end
  return table.concat(list, ", ")
end

--- A table: for each node a row for each of its links.
---@param topology table
---@param opts? { width?: number, color?: boolean }
---@return string
function M.text(topology, opts)
  local ends = by_node(topology)
  local rows = {}
  for _, node in ipairs(topology.nodes) do
    local row = { node.name, node.state, node.addr, "", "", "", note(node) }
    for _, at in ipairs(ends[node.name] or {}) do
      row[4], row[5], row[6] = at.to, at.link.state, rtt(at.link)
      rows[#rows + 1] = row
      row = { "", "", "", "", "", "", "" }
    end
    if row[1] ~= "" then rows[#rows + 1] = row end
  end
  return ("%s · %s\n"):format(text.count(#topology.nodes, "node"),
    text.count(#topology.links, "link")) .. table_render.render({
      { title = "NODE" }, { title = "STATE", styles = members.STATE_STYLES },
      { title = "ADDRESS", whole = true }, { title = "LINKED TO" },
      { title = "LINK", styles = members.STATE_STYLES }, { title = "RTT", align = "right" },
      { title = "NOTE" },
    }, rows, opts)
end

local function quote(s)
  return '"' .. text.clean(s):gsub('[\\"]', "\\%0") .. '"'
end

--- Graphviz: `dot -Tsvg`. Who is not there is dashed, and so is a link that does not stand yet.
---@param topology table
---@return string
function M.dot(topology)
  local out = { "graph cluster {", "  node [shape=box, style=rounded];" }
  for _, node in ipairs(topology.nodes) do
    local label = quote(node.name):sub(2, -2) .. "\\n" .. quote(node.addr):sub(2, -2)
    local mark = node.unreachable and "unreachable" or node.state ~= "alive" and node.state
    if mark then label = label .. "\\n" .. quote(mark):sub(2, -2) end
    local is_there = members.is_live(node) and not node.unreachable
    out[#out + 1] = ("  %s [label=\"%s\"%s];"):format(quote(node.name), label,
      is_there and "" or ', style="rounded,dashed"')
  end
  for _, link in ipairs(topology.links) do
    local attributes = {}
    if rtt(link) ~= "" then attributes[1] = ("label=%s"):format(quote(rtt(link))) end
    if link.state ~= "up" then attributes[#attributes + 1] = "style=dashed" end
    local list = table.concat(attributes, ", ")
    out[#out + 1] = ("  %s -- %s%s;"):format(quote(link.source), quote(link.target),
      list ~= "" and " [" .. list .. "]" or "")
  end
  out[#out + 1] = "}"
  return table.concat(out, "\n") .. "\n"
end

return M
