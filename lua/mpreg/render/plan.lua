--- A plan in the forms that people and their tools read: text, Graphviz, Mermaid.

local text = require "mpreg.render.text"
local table_render = require "mpreg.render.table"

local M = {}

local function name_of(plan)
  return type(plan.name) == "string" and plan.name or "pipeline"
end

local function target(step)
  local fun = text.clean(step.call)
  return type(step.version) == "string" and fun .. " " .. text.clean(step.version) or fun
end

local function node_of(step)
  return type(step.node) == "string" and text.clean(step.node) or "?"
end

--- A table, a row for each step, level by level.
---@param plan table
---@param opts? { width?: number, color?: boolean }
---@return string
function M.text(plan, opts)
  local by_name = {}
  for _, step in ipairs(plan.steps) do by_name[step.name] = step end
  local nodes, count = {}, 0
  for _, step in ipairs(plan.steps) do
    if type(step.node) == "string" and not nodes[step.node] then
      nodes[step.node] = true
      count = count + 1
    end
  end
  local rows = {}
  for k, names in ipairs(plan.levels) do
    for i, name in ipairs(names) do
      local step = by_name[name]
      rows[#rows + 1] = { i == 1 and tostring(k - 1) or "", step.name,
        target(step) .. (step.each == true and " × each" or ""), node_of(step),
        text.names(step.needs or {}, 4), text.names(step.depends_on or {}, 4) }
    end
  end
  return ("Plan %s · %s · %s\n"):format(text.clean(name_of(plan)),
    text.count(#plan.levels, "level"), text.count(#plan.steps, "step")
    .. (count > 1 and " · " .. text.count(count, "node") or ""))
    .. table_render.render({
      { title = "LEVEL", align = "right" }, { title = "STEP" }, { title = "CALLS" },
      { title = "NODE" }, { title = "NEEDS" }, { title = "AFTER" },
    }, rows, opts)
end

local function quote(s)
  return '"' .. text.clean(s):gsub('[\\"]', "\\%0") .. '"'
end

--- Graphviz: `dot -Tsvg`.
---@param plan table
---@return string
function M.dot(plan)
  local out = { ("digraph %s {"):format(quote(name_of(plan))), "  rankdir=LR;",
    "  node [shape=box, style=rounded];" }
  for _, step in ipairs(plan.steps) do
    local label = quote(step.name):sub(2, -2) .. "\\n" .. quote(target(step)):sub(2, -2)
      .. "\\n" .. quote("on " .. node_of(step)):sub(2, -2)
    out[#out + 1] = ("  %s [label=\"%s\"%s];"):format(quote(step.name), label,
      step.each == true and ", peripheries=2" or "")
  end
  for _, step in ipairs(plan.steps) do
    for _, from in ipairs(step.depends_on or {}) do
      out[#out + 1] = ("  %s -> %s;"):format(quote(from), quote(step.name))
    end
  end
  out[#out + 1] = "}"
  return table.concat(out, "\n") .. "\n"
end

--- Mermaid, for web pages and READMEs.
---@param plan table
---@return string
function M.mermaid(plan)
  -- Names of steps may be words of Mermaid's own: the boxes are numbered.
  local ids = {}
  local out = { "flowchart LR" }
  for i, step in ipairs(plan.steps) do
    ids[step.name] = "s" .. i
    local label = ("%s<br/>%s<br/>on %s"):format(step.name, target(step), node_of(step))
    label = text.clean(label):gsub('"', "#quot;")
    local open, close = "[", "]"
    if step.each == true then open, close = "[[", "]]" end
    out[#out + 1] = ("  %s%s\"%s\"%s"):format(ids[step.name], open, label, close)
  end
  for _, step in ipairs(plan.steps) do
    for _, from in ipairs(step.depends_on or {}) do
      if ids[from] then
        out[#out + 1] = ("  %s --> %s"):format(ids[from], ids[step.name])
      end
    end
  end
  return table.concat(out, "\n") .. "\n"
end

return M
