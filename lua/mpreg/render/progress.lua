--- A run while it goes on: a few lines that are drawn over themselves, and events as lines.
---
---     quakes  ██████████████▊       2 of 4 steps · 0 failed · 120.3 ms
---       ✓ events       45.2 ms  n1
---       • strong       since 46.0 ms  n2
---
--- Whoever follows its events line by line has the state in a single line below them:
---
---     quakes  ██████████████▊       2 of 4 steps · running: strong on n2 · 1 of 3 levels complete
---
--- Texts in, texts out: who writes them decides when.

local text = require "mpreg.render.text"
local trace = require "mpreg.render.trace"

local M = {}

--- The least time between two drawings.
M.REDRAW_S = 0.05

local BAR_COLUMNS = 24
local LINES_MAX = 8
local STATUS_BAR_COLUMNS = 16
local STATUS_NAMES_MAX = 3
local LEVEL_NAMES_MAX = 6
local PREVIEW = { depth = 3, items = 8, bytes = 160, columns = 1e9 } -- of a step's result
local PREVIEW_INDENT = (" "):rep(12)

local Screen = {}
Screen.__index = Screen

--- An empty screen.
---@param opts { name?: string, width?: number, color?: boolean }
---@return table
function M.new(opts)
  return setmetatable({
    name = text.clean(opts.name or "run"), width = opts.width or 80,
    paint = text.painter(opts.color), total = 0, ended = 0, failed = 0, at_ms = 0, lines = 0,
    -- Steps that run, in the order of their start; and the last that ended.
    running = {}, recent = {}, levels = 0, complete = 0,
  }, Screen)
end

local function remove(list, name)
  for i = 1, #list do
    if list[i].name == name then return table.remove(list, i) end
  end
end

--- Takes an event.
---@param event table
function Screen:event(event)
  self.at_ms = tonumber(event.at_ms) or self.at_ms
  local kind = event.event
  if kind == "run_started" then
    self.total, self.levels = event.steps, event.levels
    if type(event.name) == "string" then self.name = text.clean(event.name) end
  elseif kind == "step_started" then
    self.running[#self.running + 1] = {
      name = text.clean(event.step), at_ms = self.at_ms, total = event.total,
      node = type(event.node) == "string" and text.clean(event.node) or "",
    }
  elseif kind == "step_progress" then
    for _, step in ipairs(self.running) do
      if step.name == event.step then step.done, step.total = event.done, event.total end
    end
  elseif kind == "level_completed" then
    self.complete = self.complete + 1
  elseif kind == "step_succeeded" or kind == "step_failed" or kind == "step_skipped" then
    local name = text.clean(event.step)
    local step = remove(self.running, name) or { name = name, at_ms = self.at_ms, node = "" }
    if type(event.node) == "string" then step.node = text.clean(event.node) end
    step.mark = kind
    step.ms = self.at_ms - step.at_ms
    self.ended = self.ended + 1
    if kind == "step_failed" then self.failed = self.failed + 1 end
    self.recent[#self.recent + 1] = step
    if #self.recent > LINES_MAX then table.remove(self.recent, 1) end
  end
end

--- The bar of what has ended, in so many columns.
local function bar_of(screen, columns)
  local share = screen.total > 0 and math.min(1, screen.ended / screen.total) or 0
  local bar, used = "", 0
  if share > 0 then bar, used = trace.bar(0, share, columns) end
  return screen.paint(screen.failed > 0 and "red" or "green", bar) .. (" "):rep(columns - used)
end

local function failed_text(screen)
  return screen.failed > 0 and (" · %d failed"):format(screen.failed) or ""
end

--- The state in one line, for below events; it is no wider than the terminal.
---@return string
function Screen:status()
  local names = {}
  for i = 1, math.min(#self.running, STATUS_NAMES_MAX) do
    local step = self.running[i]
    names[i] = step.name .. (step.total and (" %d/%d"):format(step.done or 0, step.total) or "")
      .. (step.node ~= "" and " on " .. step.node or "")
  end
  local rest = #self.running - #names
  local name = text.cut(self.name, math.max(8, math.floor(self.width / 4)))
  local tail = ("  %d of %s%s"):format(self.ended, text.count(self.total, "step"),
    failed_text(self))
  if #names > 0 then
    tail = tail .. " · running: " .. table.concat(names, ", ")
      .. (rest > 0 and (", +%d"):format(rest) or "")
  end
  tail = tail .. (" · %d of %s complete"):format(self.complete, text.count(self.levels, "level"))
  -- The last column stays free: a cursor behind it would be in the next line.
  local room = self.width - 1 - text.width(name) - 2 - STATUS_BAR_COLUMNS
  return ("%s  %s%s"):format(self.paint("bold", name), bar_of(self, STATUS_BAR_COLUMNS),
    text.cut(tail, math.max(0, room)))
end

local MARKS = {
  step_succeeded = { "green", "✓" }, step_failed = { "red", "✗" }, step_skipped = { "dim", "–" },
}

--- The lines as they are now, without escapes that move the cursor.
---@return string[]
function Screen:text()
  local out = { ("%s  %s  %d of %s%s · %s"):format(self.paint("bold", self.name),
    bar_of(self, BAR_COLUMNS), self.ended, text.count(self.total, "step"), failed_text(self),
    text.duration(self.at_ms)) }
  local shown_running = math.min(#self.running, LINES_MAX)
  local shown_recent = math.min(#self.recent, LINES_MAX - shown_running)
  local room = self.width - 4
  local rows, name_width, time_width = {}, 0, 0
  local function add(mark, step, time)
    local name = text.cut(step.name, math.max(8, math.floor(room / 2)))
    rows[#rows + 1] = { mark, name, time, step.node }
    name_width = math.max(name_width, text.width(name))
    time_width = math.max(time_width, text.width(time))
  end
  for i = #self.recent - shown_recent + 1, #self.recent do
    local step = self.recent[i]
    add(self.paint(MARKS[step.mark][1], MARKS[step.mark][2]), step, text.duration(step.ms))
  end
  for i = 1, shown_running do
    local step = self.running[i]
    add("•", step, step.total and ("%d of %d"):format(step.done or 0, step.total)
      or "since " .. text.duration(step.at_ms))
  end
  for _, row in ipairs(rows) do
    local line = ("%s  %s  %s"):format(text.pad(row[2], name_width),
      text.pad(row[3], time_width, "right"), row[4])
    out[#out + 1] = ("  %s %s"):format(row[1], text.cut(line, room))
  end
  if #self.running > shown_running then
    out[#out + 1] = ("  … (+%d running)"):format(#self.running - shown_running)
  end
  for i = 1, #out do out[i] = out[i]:gsub(" +$", "") end
  return out
end

--- What removes the last drawing.
---@return string
function Screen:erase()
  if self.lines == 0 then return "" end
  local up = ("\27[%dA\r\27[J"):format(self.lines)
  self.lines = 0
  return up
end

--- What replaces the last drawing by the present state.
---@return string
function Screen:draw()
  local erase = self:erase()
  local lines = self:text()
  self.lines = #lines
  return erase .. table.concat(lines, "\n") .. "\n"
end

local function error_text(err)
  if type(err) ~= "table" then return "" end
  local name = tostring(err.code) .. (err.reason and "/" .. tostring(err.reason) or "")
  return ("%s: %s"):format(text.clean(name), text.clean(err.message or ""))
end

local function words(...)
  local out = {}
  for i = 1, select("#", ...) do
    local word = select(i, ...)
    if type(word) == "string" and word ~= "" then out[#out + 1] = word end
  end
  return table.concat(out, "  ")
end

local function optional(format, value)
  return (type(value) == "string" or type(value) == "number") and format:format(text.clean(value))
end

local LINES = {
  run_started = function(e)
    return words(optional("%s", e.name), ("%s, %s"):format(text.count(e.steps or 0, "step"),
      text.count(e.levels or 0, "level")), optional("resumes %s", e.resumed_from))
  end,
  step_started = function(e)
    return words(optional("%s", e.step), optional("%s", e.call), optional("on %s", e.node))
  end,
  step_progress = function(e)
    return words(optional("%s", e.step), ("%d of %d"):format(e.done or 0, e.total or 0))
  end,
  step_succeeded = function(e)
    if e.attempts == 0 then return words(optional("%s", e.step), "kept") end
    return words(optional("%s", e.step), type(e.run_ms) == "number" and text.duration(e.run_ms),
      optional("on %s", e.node))
  end,
  step_failed = function(e) return words(optional("%s", e.step), error_text(e.error)) end,
  step_retried = function(e)
    return words(optional("%s", e.step), optional("element %s", e.index),
      optional("attempt %s", e.attempt), error_text(e.error))
  end,
  step_skipped = function(e)
    return words(optional("%s", e.step), optional("because of %s", e.because_step))
  end,
  level_completed = function(e)
    local names = {}
    for i, name in ipairs(type(e.steps) == "table" and e.steps or {}) do
      names[i] = text.clean(name)
    end
    return words(optional("level %s", e.level),
      type(e.progress) == "number" and ("%.1f%%"):format(e.progress),
      #names > 0 and "new: " .. text.names(names, LEVEL_NAMES_MAX))
  end,
  run_finished = function(e) return words(optional("%s", e.status), error_text(e.error)) end,
}

local STYLES = { step_succeeded = "green", step_failed = "red", step_retried = "yellow",
  run_finished = "bold", step_skipped = "dim" }
-- What of a line is coloured beside its kind: what went wrong.
local DETAIL_STYLES = { step_failed = "red", step_retried = "yellow" }

--- An event as one line: time, kind, what there is to say.
---@param event table
---@param opts? { color?: boolean }
---@return string line  without a newline
function M.event_line(event, opts)
  local paint = text.painter(opts and opts.color)
  local kind = text.clean(event.event)
  local describe = LINES[kind]
  local time = text.pad(text.duration(tonumber(event.at_ms) or 0), 10, "right")
  local detail = describe and describe(event) or ""
  if DETAIL_STYLES[kind] then detail = paint(DETAIL_STYLES[kind], detail) end
  local line = ("%s  %s  %s"):format(time, paint(STYLES[kind] or "cyan", text.pad(kind, 15)),
    detail)
  return (line:gsub(" +$", ""))
end

--- The beginning of a step's result as one line; nil if the event brings none.
---@param event table
---@param opts? { color?: boolean }
---@return string? line  without a newline
function M.result_line(event, opts)
  local result = event.result
  if event.event ~= "step_succeeded" or result == nil then return nil end
  local large = type(result) == "table" and result["$large"]
  local shown
  if type(large) == "table" then
    shown = ("%s of %s: %s"):format(text.clean(large.type),
      text.bytes(tonumber(large.bytes) or 0), text.clean(large.preview))
  else
    shown = require "mpreg.render.value".text(result, { depth = PREVIEW.depth,
      items = PREVIEW.items, bytes = PREVIEW.bytes, columns = PREVIEW.columns })
  end
  return PREVIEW_INDENT .. text.painter(opts and opts.color)("dim", "= " .. shown)
end

return M
