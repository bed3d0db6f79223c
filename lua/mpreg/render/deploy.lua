--- What deploys did, as text: lines, the nodes' table, a module's history.

local table_render = require "mpreg.render.table"
local text = require "mpreg.render.text"

local M = {}

M.STATE_STYLES = {
  live = "green", staged = "yellow", failed = "red", behind = "yellow", superseded = "dim",
  overtaken = "red",
}

local HASH_DIGITS = 8
local NODES_MAX = 3 -- named in a history's note; of the others the number

local function known(value) return type(value) == "string" and value ~= "" end

--- The first digits of a hash; empty if there is none.
---@param hash any
---@return string
function M.short(hash) return known(hash) and text.clean(hash):sub(1, HASH_DIGITS) or "" end

--- `1.2.0 (3fa9c1d2)`, `1.2.0+3fa9c1d2`, or what is known of it.
local function identity(version, hash)
  local digits = M.short(hash)
  if not known(version) then return digits end
  local ending = version:sub(-#digits - 1)
  if digits == "" or ending == "+" .. digits or ending == "." .. digits then
    return text.clean(version)
  end
  return ("%s (%s)"):format(text.clean(version), digits)
end

local VERBS = { deploy = "deployed", rollback = "rolled back", undeploy = "undeployed" }

--- One module of an answer as a line: `deployed quakes 1.2.0 (3fa9c1d2), was 1.1.0 (8a771b02)`.
---@param action "deploy"|"rollback"|"undeploy"
---@param module table  module, version, hash, previous
---@param opts? { color?: boolean, was?: table }  was: by name, { version, hash } of what was live
---@return string line  without a newline
function M.line(action, module, opts)
  local paint = text.painter(opts and opts.color)
  local name = text.clean(module.module or "?")
  if module.kind == "pipeline" then name = "pipeline " .. name end
  local is_same = action ~= "undeploy" and known(module.previous)
    and module.previous == module.hash
  local now = identity(module.version, module.hash)
  if is_same then
    return ("%s %s %s"):format(paint("dim", "unchanged"), paint("bold", name), now)
  end
  local before = opts and opts.was and opts.was[module.module]
  local has_before = before and known(module.previous) and before.hash == module.previous
  local was = known(module.previous)
    and ", was " .. identity(has_before and before.version, module.previous)
    or action == "deploy" and ", new" or ""
  local to = action == "rollback" and "to " or ""
  return (("%s %s %s%s"):format(paint("green", VERBS[action]), paint("bold", name), to, now)
    :gsub(" +$", "")) .. was
end

--- The modules of an answer.
---@param answer table
---@return table[]
function M.modules(answer)
  if type(answer.modules) == "table" and #answer.modules > 0 then return answer.modules end
  return { answer }
end

local BEHIND = "catches up before it serves"

local function note_of(node)
  local err = node.error
  if type(err) ~= "table" then return node.state == "behind" and BEHIND or "" end
  local name = tostring(err.code or "UNKNOWN")
  if err.reason then name = name .. "/" .. tostring(err.reason) end
  return ("%s: %s"):format(name, tostring(err.message or ""))
end

--- A table with a column of notes behind the others, if there is any note.
local function with_notes(columns, rows, opts)
  local has_note = false
  for _, row in ipairs(rows) do has_note = has_note or row[#columns + 1] ~= "" end
  if has_note then columns[#columns + 1] = { title = "NOTE" } end
  return table_render.render(columns, rows, opts)
end

--- The nodes of an answer, or of an ERROR, a row each.
---@param nodes table[]
---@param opts? { width?: number, color?: boolean }
---@return string
function M.nodes(nodes, opts)
  local rows = {}
  for i, node in ipairs(nodes) do
    rows[i] = { node.node, node.state,
      type(node.ms) == "number" and text.duration(node.ms) or "", note_of(node) }
  end
  return with_notes({
    { title = "NODE" }, { title = "STATE", styles = M.STATE_STYLES },
    { title = "TIME", align = "right" },
  }, rows, opts)
end

local function are_all_live(nodes)
  for _, node in ipairs(nodes) do
    if node.state ~= "live" then return false end
  end
  return true
end

--- All of an answer: a line for each module, then the nodes, if anything happened to them.
---@param action "deploy"|"rollback"|"undeploy"
---@param answer table
---@param opts? { width?: number, color?: boolean, was?: table }
---@return string
function M.text(action, answer, opts)
  local out = {}
  for i, module in ipairs(M.modules(answer)) do out[i] = M.line(action, module, opts) .. "\n" end
  local nodes = answer.nodes
  local is_quiet = answer.unchanged == true and type(nodes) == "table" and are_all_live(nodes)
  if type(nodes) == "table" and #nodes > 0 and not is_quiet then
    out[#out + 1] = "\n" .. M.nodes(nodes, opts)
  end
  return table.concat(out)
end

--- A moment in local time: `2026-11-28T20:47:10`.
---@param at any  Unix ms
---@return string
function M.moment(at)
  return type(at) == "number" and os.date("%Y-%m-%dT%H:%M:%S", math.floor(at / 1000)) or ""
end

--- Where a rollback may lead: the versions in a history that are not live, the newest first.
---@param history table  the answer
---@return { version: string, hash: string, at: string, kind: string }[]
function M.versions(history)
  local live, list, seen = {}, {}, {}
  for _, entry in ipairs(history.entries or {}) do
    if entry.state == "live" and known(entry.hash) then live[entry.hash] = true end
  end
  for _, entry in ipairs(history.entries or {}) do
    local version = entry.version
    if entry.action == "deploy" and known(version) and not live[entry.hash] and not seen[version]
    then
      seen[version] = true
      list[#list + 1] = { version = version, hash = M.short(entry.hash), at = M.moment(entry.at),
        kind = entry.kind }
    end
  end
  return list
end

local function scope(entry)
  if not known(entry.scope) or type(entry.nodes) ~= "table" then return "" end
  return ("%s %s"):format(text.clean(entry.scope), text.few(entry.nodes, NODES_MAX))
end

--- A module's history, the newest entry first.
---@param history table  the answer
---@param opts? { width?: number, color?: boolean }
---@return string
function M.history(history, opts)
  local rows, kinds, has_pipeline = {}, {}, false
  for i, entry in ipairs(history.entries or {}) do
    rows[i] = { M.moment(entry.at), entry.action, known(entry.version) and entry.version or "",
      M.short(entry.hash), M.short(entry.previous), known(entry.by) and entry.by or "", entry.node,
      entry.state, scope(entry) }
    kinds[i] = known(entry.kind) and entry.kind or ""
    has_pipeline = has_pipeline or entry.kind == "pipeline"
  end
  local columns = {
    { title = "WHEN", whole = true }, { title = "ACTION" }, { title = "VERSION" },
    { title = "HASH", whole = true }, { title = "PREVIOUS", whole = true }, { title = "BY" },
    { title = "NODE" }, { title = "STATE", styles = M.STATE_STYLES },
  }
  -- Of a name that a module and a pipeline may have.
  if has_pipeline then
    table.insert(columns, 3, { title = "KIND" })
    for i, row in ipairs(rows) do table.insert(row, 3, kinds[i]) end
  end
  return with_notes(columns, rows, opts)
end

return M
