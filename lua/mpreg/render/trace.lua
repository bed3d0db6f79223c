--- A run's trace: a line for each level with a bar in time, and what the run's time was spent on.
---
---     Run 01KB… quakes · succeeded · 4 levels · 4 steps · 2 nodes · 197.8 ms
---     Level 0   45.2 ms  ██████▉                         25.0%  new: events   available: events

local text = require "mpreg.render.text"

local M = {}

local BAR_COLUMNS = 30
local NAMES_MAX = 12
local PATH_MAX = 12
-- Of more levels the first and the last are shown, half of these each.
local LEVELS_MAX = 40
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

--- Steps by level, each level: { start, names by status }.
local function gather(run)
  local levels = {}
  for _, step in ipairs(run.steps) do
    local k = (step.level or 0) + 1
    local level = levels[k]
    if not level then
      level = { by_status = {} }
      levels[k] = level
    end
    local list = level.by_status[step.status]
    if not list then
      list = {}
      level.by_status[step.status] = list
    end
    list[#list + 1] = text.clean(step.name)
    local start = tonumber(step.started_ms)
    if start and (not level.start or start < level.start) then level.start = start end
  end
  return levels
end

local OTHER_STATUSES = { "failed", "timed_out", "cancelled", "skipped", "running", "pending" }
local STATUS_STYLE = { succeeded = "green", failed = "red", timed_out = "red", lost = "red" }

local function header(run, paint)
  local summary = run.summary
  local parts = { ("Run %s"):format(text.clean(run.run_id or "?")) }
  local status = text.clean(run.status)
  local name = run.name and " " .. paint("bold", text.clean(run.name)) or ""
  parts[1] = parts[1] .. name
  parts[2] = paint(STATUS_STYLE[status] or "yellow", status)
  parts[3] = text.count(summary.levels, "level")
  parts[4] = text.count(summary.steps, "step")
  parts[5] = text.count(#(summary.nodes or {}), "node")
  parts[6] = text.duration(summary.total_ms)
  if (summary.retries or 0) > 0 then
    parts[7] = ("%d %s"):format(summary.retries, summary.retries == 1 and "retry" or "retries")
  end
  return table.concat(parts, " · ")
end

--- How long a step took. The elements of `each` ran side by side: their sum says nothing.
local function time_of(step)
  local sum = (step.queue_ms or 0) + (step.network_ms or 0) + (step.run_ms or 0)
  if type(step.ended_ms) == "number" and type(step.started_ms) == "number" then
    return math.min(sum, step.ended_ms - step.started_ms)
  end
  return sum
end

local function footer(run, paint)
  local summary = run.summary
  local parts = {}
  if type(summary.bottleneck_step) == "string" then
    local of
    for _, step in ipairs(run.steps) do
      if step.name == summary.bottleneck_step then of = step end
    end
    local ms = of and time_of(of) or 0
    local share = summary.total_ms > 0 and math.min(100, 100 * ms / summary.total_ms) or 0
    parts[1] = ("%s %s (level %s, %.0f%% of the run)"):format(paint("dim", "bottleneck:"),
      text.clean(summary.bottleneck_step), tostring(summary.bottleneck_level), share)
  end
  local path = summary.critical_path
  if type(path) == "table" and #path > 0 then
    local names = {}
    for i = 1, #path do names[i] = text.clean(path[i]) end
    if #names > PATH_MAX then
      local head = PATH_MAX / 2
      local short = {}
      for i = 1, head do short[i] = names[i] end
      short[head + 1] = ("… (+%d)"):format(#names - PATH_MAX)
      for i = 1, head do short[head + 1 + i] = names[#names - head + i] end
      names = short
    end
    parts[#parts + 1] = paint("dim", "critical path:") .. " " .. table.concat(names, " → ")
  end
  return table.concat(parts, " · ")
end

--- The trace of a run object, ending with a newline.
---@param run table
---@param opts? { width?: number, color?: boolean, name?: string }
---@return string
function M.text(run, opts)
  opts = opts or {}
  local paint = text.painter(opts.color)
  local summary = run.summary
  local levels = gather(run)
  local count = summary.levels
  local total = math.max(summary.total_ms, 1e-6)
  local out = { header({ run_id = run.run_id, name = run.name or opts.name, status = run.status,
    summary = summary }, paint) }

  local label_width = #tostring(math.max(0, count - 1))
  local durations, duration_width = {}, 8
  for k = 1, count do
    durations[k] = text.duration(summary.level_ms and summary.level_ms[k] or 0)
    duration_width = math.max(duration_width, text.width(durations[k]))
  end

  local bar_columns = BAR_COLUMNS
  local new_width, news = 0, {}
  for k = 1, count do
    local level = levels[k] or { by_status = {} }
    news[k] = text.names(level.by_status.succeeded or {}, NAMES_MAX)
    new_width = math.max(new_width, text.width(news[k]))
  end

  local available = {}
  local function add_level(k)
    local level = levels[k] or { by_status = {} }
    local bar, used = "", 0
    if level.start then
      bar, used = M.bar(level.start / total, (summary.level_ms[k] or 0) / total, bar_columns)
    end
    local is_bad = level.by_status.failed or level.by_status.timed_out
    local line = ("Level %s %s  "):format(text.pad(tostring(k - 1), label_width, "right"),
      text.pad(durations[k], duration_width, "right"))
    local columns = text.width(line) + bar_columns + 1 + 6
    line = line .. paint(is_bad and "red" or "green", bar) .. (" "):rep(bar_columns - used + 1)
      .. ("%6s"):format(("%.1f%%"):format(100 * k / count))
    local tail = "  new: " .. text.pad(news[k], math.min(new_width, 40))
    for _, status in ipairs(OTHER_STATUSES) do
      if level.by_status[status] then
        tail = tail .. "   " .. status .. ": " .. text.names(level.by_status[status], NAMES_MAX)
      end
    end
    tail = tail .. "   available: " .. text.names(available, NAMES_MAX)
    if opts.width then tail = text.cut(tail, math.max(12, opts.width - columns)) end
    out[#out + 1] = line .. (tail:gsub(" +$", ""))
  end
  for k = 1, count do
    local succeeded = levels[k] and levels[k].by_status.succeeded or {}
    for _, name in ipairs(succeeded) do available[#available + 1] = name end
    if count <= LEVELS_MAX or k <= LEVELS_MAX / 2 or k > count - LEVELS_MAX / 2 then
      add_level(k)
    elseif k == LEVELS_MAX / 2 + 1 then
      out[#out + 1] = ("… (+%d levels)"):format(count - LEVELS_MAX)
    end
  end
  local last = footer(run, paint)
  if last ~= "" then out[#out + 1] = last end
  return table.concat(out, "\n") .. "\n"
end

return M
