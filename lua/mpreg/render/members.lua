--- The nodes of a cluster as a table, one node as a page.

local table_render = require "mpreg.render.table"
local text = require "mpreg.render.text"

local M = {}

M.STATE_STYLES = {
  alive = "green", suspect = "yellow", dead = "red", left = "dim", unreachable = "red",
  up = "green", dialling = "yellow",
}

local RESOURCES_MAX = 6

--- Is it one of those that are there, or taken to be?
---@param node table
---@return boolean
function M.is_live(node)
  return node.state == "alive" or node.state == "suspect"
end

--- The live ones by name, then the others.
---@param nodes table[]
---@return table[] sorted  a new list
function M.sorted(nodes)
  local list = {}
  for i = 1, #nodes do list[i] = nodes[i] end
  table.sort(list, function(a, b)
    local a_lives, b_lives = M.is_live(a), M.is_live(b)
    if a_lives ~= b_lives then return a_lives end
    return tostring(a.name) < tostring(b.name)
  end)
  return list
end

local function number(value, format)
  return type(value) == "number" and format:format(value) or ""
end

local function word(value)
  return type(value) == "string" and value or ""
end

--- How long ago, in a word: `12 s`, `4 m 05 s`.
local function ago(ms)
  if ms < 1000 then return ("%.1f s"):format(ms / 1000) end
  if ms < 59500 then return ("%.0f s"):format(ms / 1000) end
  return text.duration(ms)
end

--- What else is to be said of a node.
local function notes(node)
  local list = {}
  local since = tonumber(node.since_ms)
  if node.state == "left" then
    list[#list + 1] = since and ("left %s ago"):format(ago(since))
  elseif node.state ~= "alive" then
    list[#list + 1] = since and ("%s for %s"):format(text.clean(node.state), ago(since))
  end
  if type(node.via) == "string" then list[#list + 1] = "via " .. node.via end
  if node.insecure == true then list[#list + 1] = "insecure" end
  return table.concat(list, ", ")
end

--- A row for each node.
---@param nodes table[]
---@param opts? { width?: number, color?: boolean }
---@return string
function M.table(nodes, opts)
  local rows = {}
  for i, node in ipairs(M.sorted(nodes)) do
    local is_live = M.is_live(node)
    rows[i] = { node.name, node.state, node.addr, text.few(node.resources or {}, RESOURCES_MAX),
      number(node.workers, "%d"), is_live and number(node.load, "%.4g") or "", word(node.version),
      is_live and number(node.rtt_ms, "%.1f ms") or "", notes(node) }
  end
  return table_render.render({
    { title = "NODE" }, { title = "STATE", styles = M.STATE_STYLES },
    { title = "ADDRESS", whole = true }, { title = "RESOURCES" },
    { title = "WORKERS", align = "right" },
    { title = "LOAD", align = "right" }, { title = "VERSION" }, { title = "RTT", align = "right" },
    { title = "NOTE" },
  }, rows, opts)
end

local STATES = { "alive", "suspect", "dead", "left" }

local function members_line(counts, paint)
  local parts = {}
  for _, state in ipairs(STATES) do
    local n = tonumber(counts[state]) or 0
    local part = ("%d %s"):format(n, state)
    parts[#parts + 1] = n > 0 and state ~= "alive" and paint(M.STATE_STYLES[state], part) or part
  end
  return table.concat(parts, ", ")
end

local function worker_rows(workers)
  local rows = {}
  for i, worker in ipairs(workers) do
    rows[i] = { number(worker.pid, "%d"), text.clean(worker.state or ""),
      number(worker.begun, "%d"), number(worker.queued, "%d"),
      number(worker.calls, "%.0f"), number(worker.restarts, "%d"),
      type(worker.memory_bytes) == "number" and text.bytes(worker.memory_bytes) or "" }
  end
  return rows
end

--- One node's answer about itself.
---@param status table
---@param opts? { width?: number, color?: boolean }
---@return string
function M.page(status, opts)
  local paint = text.painter(opts and opts.color)
  local node = status.node
  local state = text.clean(node.state)
  local out = { table.concat({
    paint("bold", text.clean(node.name)), paint(M.STATE_STYLES[state] or "yellow", state),
    text.clean(node.addr), "cluster " .. text.clean(node.cluster),
    "mpreg " .. text.clean(node.version),
    "up " .. ago((tonumber(status.uptime_s) or 0) * 1000),
  }, " · ") }
  local function line(name, value)
    out[#out + 1] = ("  %s %s"):format(paint("dim", text.pad(name, 10)), value)
  end
  if node.insecure == true then
    line("insecure", paint("yellow", "whoever can connect may run code here"))
  end
  local resources = text.clean(text.few(node.resources or {}, RESOURCES_MAX))
  line("resources", resources == "" and "none" or resources)
  line("members", members_line(status.members or {}, paint))
  line("links", number(status.links, "%d"))
  line("calls", ("%s, %s failed, %s queued"):format(number(status.calls, "%.0f"),
    number(status.errors, "%.0f"), number(status.queued, "%d")))
  if type(status.held) == "table" then
    line("held", ("%s for runs, %s"):format(text.count(status.held.count, "result"),
      text.bytes(status.held.bytes)))
  end
  return table.concat(out, "\n") .. "\n\n" .. table_render.render({
    { title = "WORKER", align = "right" }, { title = "STATE" },
    { title = "BEGUN", align = "right" },
    { title = "QUEUED", align = "right" }, { title = "CALLS", align = "right" },
    { title = "RESTARTS", align = "right" }, { title = "MEMORY", align = "right" },
  }, worker_rows(status.workers or {}), opts)
end

return M
