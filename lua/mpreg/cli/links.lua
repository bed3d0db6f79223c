--- Who is linked to whom, put together from what each node tells of its own links.

local codec = require "mpreg.codec"
local members = require "mpreg.render.members"

local M = {}

--- The names of the nodes that can be asked.
---@param nodes table[]
---@return string[]
function M.to_ask(nodes)
  local names = {}
  for _, node in ipairs(members.sorted(nodes)) do
    if members.is_live(node) then names[#names + 1] = node.name end
  end
  return names
end

local function by_address(nodes)
  local names = {}
  for _, node in ipairs(nodes) do
    -- An address may have had several owners: who lives there is meant.
    if names[node.addr] == nil or members.is_live(node) then names[node.addr] = node.name end
  end
  return names
end

--- What the other end is called. Until it is known, who listens at its address, or the address.
local function other_end(link, names)
  if type(link.node) == "string" and link.node ~= "" then return link.node end
  if type(link.addr) == "string" then return names[link.addr] or link.addr end
end

--- The smaller of two times, either of which may be missing.
local function least(a, b)
  if type(a) ~= "number" then return type(b) == "number" and b or nil end
  return type(b) == "number" and math.min(a, b) or a
end

local function add(found, list, teller, other, link)
  local source, target = teller, other
  if target < source then source, target = target, source end
  found[source] = found[source] or {}
  local known = found[source][target]
  if not known then
    known = { source = source, target = target, state = link.state }
    found[source][target] = known
    list[#list + 1] = known
  end
  known.rtt_ms = least(known.rtt_ms, link.rtt_ms)
  -- One end may hear a moment later than the other that the link stands.
  if link.state == "up" then known.state = "up" end
end

--- `answers`: by name, { links = … } or { error = ERROR }.
---@param nodes table[]
---@param answers table
---@return table topology  { nodes, links }, each sorted
function M.merge(nodes, answers)
  local merged = { nodes = codec.array {}, links = codec.array {} }
  local names, found = by_address(nodes), {}
  for i, node in ipairs(members.sorted(nodes)) do
    local told = answers[node.name]
    local is_silent = members.is_live(node) and not (told and told.links)
    merged.nodes[i] = { name = node.name, state = node.state, addr = node.addr,
      via = type(node.via) == "string" and node.via or nil,
      unreachable = is_silent or nil, error = is_silent and told and told.error or nil }
    for _, link in ipairs(told and told.links or {}) do
      local other = other_end(link, names)
      if other and other ~= node.name then add(found, merged.links, node.name, other, link) end
    end
  end
  table.sort(merged.links, function(a, b)
    if a.source ~= b.source then return a.source < b.source end
    return a.target < b.target
  end)
  for _, link in ipairs(merged.links) do
    if link.rtt_ms == nil then link.rtt_ms = codec.null end
  end
  return merged
end

return M
