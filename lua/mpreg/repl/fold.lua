--- The answers of many nodes to one question: equal ones become one.
---
---     n1 n2 n4: 42
---     n3: 41

local text = require "mpreg.render.text"

local M = {}

local NODES_MAX = 16 -- named; of the others the number

local function group(answers)
  local groups, by_text = {}, {}
  for _, answer in ipairs(answers) do
    local found = by_text[answer.text]
    if not found then
      found = { text = answer.text, is_failure = answer.is_failure, nodes = {} }
      by_text[answer.text] = found
      groups[#groups + 1] = found
    end
    found.nodes[#found.nodes + 1] = answer.node
  end
  for _, g in ipairs(groups) do table.sort(g.nodes) end
  return groups
end

--- What most nodes say first, failures last, else by name.
local function before(a, b)
  if a.is_failure ~= b.is_failure then return b.is_failure == true end
  if #a.nodes ~= #b.nodes then return #a.nodes > #b.nodes end
  return a.nodes[1] < b.nodes[1]
end

--- The lines of all answers.
---@param answers { node: string, text: string, is_failure?: boolean }[]
---@param opts? { color?: boolean }
---@return string  ending with a newline, or empty
function M.text(answers, opts)
  local paint = text.painter(opts and opts.color)
  local groups = group(answers)
  table.sort(groups, before)
  local out = {}
  for _, g in ipairs(groups) do
    local names = {}
    for i, name in ipairs(g.nodes) do names[i] = text.clean(name) end
    local head = paint(g.is_failure and "red" or "bold", text.names(names, NODES_MAX, " ") .. ":")
    local body = g.text:gsub("\n$", "")
    if body == "" then
      out[#out + 1] = head
    elseif body:find("\n", 1, true) then
      out[#out + 1] = head .. "\n  " .. body:gsub("\n", "\n  ")
    else
      out[#out + 1] = head .. " " .. body
    end
  end
  return #out > 0 and table.concat(out, "\n") .. "\n" or ""
end

return M
