--- A run's trace: a line for each level with a bar in time, and what the run's time was spent on.
---
---     Run 01KB… quakes · succeeded · 4 levels · 4 steps · 2 nodes · 197.8 ms
---     Level 0   45.2 ms  ██████▉                        25.0%  new: events   available: events
---             n1: events
---
--- What ran where follows each level if the run took more than one node. Of a run that resumes
--- another one, a level's kept results stand apart from its new ones.

local text = require "mpreg.render.text"

local M = {}

local BAR_COLUMNS = 30
local NAMES_MAX = 12
local PATH_MAX = 12
-- Of more levels the first and the last are shown, half of these each.
local LEVELS_MAX = 40
local NEW_COLUMNS_MAX = 40
local TAIL_COLUMNS_MIN = 12
local NODES_MAX = 8
local EIGHTHS = { "▏", "▎", "▍", "▌", "▋", "▊", "▉" }

--- A bar of `columns` columns: it begins in the column of its start, and is as long as it lasted,
--- in eighths of a column, at least one.
---@param start number  as a fraction of the whole
---@param length number  as a fraction of the whole
---@param columns number
---@return string bar, number used  columns up to its end
function M.bar(start, length, columns)
  local first = math.min(columns - 1, math.max(0, math.floor(start * columns)))
  local eighths = math.max(1, math.floor(length * columns * 8 + 0.5))
  eighths = math.min(eighths, (columns - first) * 8)
  local full = math.floor(eighths / 8)
  local rest = eighths % 8
  local bar = ("█"):rep(full) .. (rest > 0 and EIGHTHS[rest] or "")
  return (" "):rep(first) .. bar, first + full + (rest > 0 and 1 or 0)
end

--- The nodes that a step ran on; an `each` may have run on many.
local function nodes_of(step)
  if type(step.nodes) == "table" and #step.nodes > 0 then return step.nodes end
  return type(step.node) == "string" and { step.node } or {}
end

--- Was it kept from the run that this one resumes?
local function is_kept(step) return step.status == "succeeded" and step.attempts == 0 end

--- Steps by level, each level: { start, names by status, names by node, succeeded }.
local function gather(run)
  local levels = {}
  for _, step in ipairs(run.steps) do
    local k = (step.level or 0) + 1
    local level = levels[k]
    if not level then
      level = { by_status = {}, by_node = {}, succeeded = {} }
      levels[k] = level
    end
    for _, node in ipairs(nodes_of(step)) do
      level.by_node[node] = level.by_node[node] or {}
      table.insert(level.by_node[node], text.clean(step.name))
    end
    local status = is_kept(step) and "kept" or step.status
    local list = level.by_status[status]
    if not list then
      list = {}
      level.by_status[status] = list
    end
    list[#list + 1] = text.clean(step.name)
    if step.status == "succeeded" then table.insert(level.succeeded, text.clean(step.name)) end
    local start = tonumber(step.started_ms)
    if start and (not level.start or start < level.start) then level.start = start end
  end
  return levels
end

local OTHER_STATUSES = { "kept", "failed", "timed_out", "cancelled", "skipped", "running",
  "pending" }
local STATUS_STYLE = { succeeded = "green", failed = "red", timed_out = "red", lost = "red" }

local function header(run, name, paint)
  local summary = run.summary
  local status = text.clean(run.status)
  local parts = { "Run " .. text.clean(run.run_id or "?") }
  if name then parts[1] = parts[1] .. " " .. paint("bold", text.clean(name)) end
  parts[2] = paint(STATUS_STYLE[status] or "yellow", status)
  parts[3] = text.count(summary.levels, "level")
  parts[4] = text.count(summary.steps, "step")
  parts[5] = text.count(#(summary.nodes or {}), "node")
  parts[6] = text.duration(summary.total_ms)
  if (summary.retries or 0) > 0 then
    parts[#parts + 1] = ("%d %s"):format(summary.retries,
      summary.retries == 1 and "retry" or "retries")
  end
  if type(run.resumed_from) == "string" then
    parts[#parts + 1] = "resumes " .. text.clean(run.resumed_from)
  end
  return table.concat(parts, " · ")
end

--- How long a step took, by the clock: elements of `each` ran side by side, so their sum says
--- nothing, and there are pauses between attempts.
local function time_of(step)
  if type(step.ended_ms) == "number" and type(step.started_ms) == "number" then
    return math.max(0, step.ended_ms - step.started_ms)
  end
  return (step.queue_ms or 0) + (step.network_ms or 0) + (step.run_ms or 0)
end

local function bottleneck(run, paint)
  local summary = run.summary
  if type(summary.bottleneck_step) ~= "string" then return nil end
  local ms = 0
  for _, step in ipairs(run.steps) do
    if step.name == summary.bottleneck_step then ms = time_of(step) end
  end
  local share = summary.total_ms > 0 and math.min(100, 100 * ms / summary.total_ms) or 0
  return ("%s %s (level %s, %.0f%% of the run)"):format(paint("dim", "bottleneck:"),
    text.clean(summary.bottleneck_step), tostring(summary.bottleneck_level), share)
end

local function critical_path(run, paint)
  local path = run.summary.critical_path
  if type(path) ~= "table" or #path == 0 then return nil end
  local names = {}
  local half = PATH_MAX / 2
  for i = 1, #path do
    if #path <= PATH_MAX or i <= half or i > #path - half then
      names[#names + 1] = text.clean(path[i])
    elseif i == half + 1 then
      names[#names + 1] = ("… (+%d)"):format(#path - PATH_MAX)
    end
  end
  return paint("dim", "critical path:") .. " " .. table.concat(names, " → ")
end

local COMPLETE = { succeeded = true, kept = true, skipped = true }

--- How many levels are complete: of each, all steps have ended well, and those of all before it.
local function count_complete(levels, count)
  for k = 1, count do
    if not levels[k] then return k - 1 end
    for status in pairs(levels[k].by_status) do
      if not COMPLETE[status] then return k - 1 end
    end
  end
  return count
end

--- What all lines of levels have in common: texts, and how wide their columns are.
local function lay_out(run, levels)
  local layout = { complete = count_complete(levels, run.summary.levels), durations = {},
    news = {}, duration_width = 8, new_width = 0,
    label_width = #tostring(math.max(0, run.summary.levels - 1)) }
  for k = 1, run.summary.levels do
    local succeeded = levels[k] and levels[k].by_status.succeeded or {}
    layout.durations[k] = text.duration(run.summary.level_ms[k] or 0)
    layout.news[k] = text.names(succeeded, NAMES_MAX)
    layout.duration_width = math.max(layout.duration_width, text.width(layout.durations[k]))
    layout.new_width = math.max(layout.new_width, text.width(layout.news[k]))
  end
  layout.new_width = math.min(layout.new_width, NEW_COLUMNS_MAX)
  return layout
end

local function level_line(run, level, k, layout, available, opts)
  local total = math.max(run.summary.total_ms, 1e-6)
  local bar, used = "", 0
  if level.start then
    bar, used = M.bar(level.start / total, (run.summary.level_ms[k] or 0) / total, BAR_COLUMNS)
  end
  local head = ("Level %s  %s  "):format(text.pad(tostring(k - 1), layout.label_width, "right"),
    text.pad(layout.durations[k], layout.duration_width, "right"))
  local progress = ("%6s"):format(("%.1f%%"):format(100 * math.min(k, layout.complete)
    / math.max(1, run.summary.levels)))
  local tail = "  new: " .. text.pad(layout.news[k], layout.new_width)
  for _, status in ipairs(OTHER_STATUSES) do
    if level.by_status[status] then
      tail = tail .. "   " .. status .. ": " .. text.names(level.by_status[status], NAMES_MAX)
    end
  end
  tail = tail .. "   available: " .. text.names(available, NAMES_MAX)
  if opts.width then
    local columns = text.width(head) + BAR_COLUMNS + 1 + #progress
    tail = text.cut(tail, math.max(TAIL_COLUMNS_MIN, opts.width - columns))
  end
  local is_bad = level.by_status.failed or level.by_status.timed_out
  return head .. text.painter(opts.color)(is_bad and "red" or "green", bar)
    .. (" "):rep(BAR_COLUMNS - used + 1) .. progress .. (tail:gsub(" +$", ""))
end

--- What ran where: `n1: events, sorted · n2: sorted`; nil if nothing ran.
local function node_line(level, layout, opts)
  local nodes, parts = {}, {}
  for node in pairs(level.by_node or {}) do nodes[#nodes + 1] = node end
  if #nodes == 0 then return nil end
  table.sort(nodes)
  for i = 1, math.min(#nodes, NODES_MAX) do
    parts[i] = ("%s: %s"):format(text.clean(nodes[i]),
      text.names(level.by_node[nodes[i]], NAMES_MAX))
  end
  if #nodes > NODES_MAX then parts[#parts + 1] = ("… (+%d)"):format(#nodes - NODES_MAX) end
  local indent = (" "):rep(#"Level " + layout.label_width + 1)
  local line = table.concat(parts, " · ")
  if opts.width then
    line = text.cut(line, math.max(TAIL_COLUMNS_MIN, opts.width - #indent))
  end
  return indent .. text.painter(opts.color)("dim", line)
end

--- What crossed the network; nil if nothing did.
local function traffic(run, paint)
  local calls = tonumber(run.summary.remote_calls) or 0
  if calls == 0 then return nil end
  return ("%s %s, %s moved"):format(paint("dim", "between nodes:"), text.count(calls, "call"),
    text.bytes(tonumber(run.summary.bytes_moved) or 0))
end

--- The trace of a run object, ending with a newline.
---@param run table
---@param opts? { width?: number, color?: boolean, name?: string }
---@return string
function M.text(run, opts)
  opts = opts or {}
  local paint = text.painter(opts.color)
  local out = { header(run, opts.name, paint) }
  local levels = gather(run)
  local count = run.summary.levels
  local layout = lay_out(run, levels)
  local available = {}
  local is_spread = #(run.summary.nodes or {}) > 1
  for k = 1, count do
    local level = levels[k] or { by_status = {}, succeeded = {} }
    for _, name in ipairs(level.succeeded) do available[#available + 1] = name end
    if count <= LEVELS_MAX or k <= LEVELS_MAX / 2 or k > count - LEVELS_MAX / 2 then
      out[#out + 1] = level_line(run, level, k, layout, available, opts)
      if is_spread then out[#out + 1] = node_line(level, layout, opts) end
    elseif k == LEVELS_MAX / 2 + 1 then
      out[#out + 1] = ("… (+%d levels)"):format(count - LEVELS_MAX)
    end
  end
  local last = { bottleneck(run, paint) }
  last[#last + 1] = critical_path(run, paint)
  if #last > 0 then out[#out + 1] = table.concat(last, " · ") end
  out[#out + 1] = traffic(run, paint)
  return table.concat(out, "\n") .. "\n"
end

return M
