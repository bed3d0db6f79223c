--- Recorded runs as a table, and the receipts of a run that was cancelled.

local table_of = require "mpreg.render.table"
local text = require "mpreg.render.text"

local M = {}

local STYLES = { succeeded = "green", failed = "red", timed_out = "red", lost = "red",
  cancelled = "yellow", running = "cyan" }

local COLUMNS = {
  { title = "RUN", whole = true }, { title = "NAME" }, { title = "STATUS", styles = STYLES },
  { title = "STARTED", whole = true }, { title = "TOOK", align = "right" },
  { title = "STEPS", align = "right" }, { title = "NODE" }, { title = "NOTE" },
}

local function note(run)
  local notes = {}
  if (tonumber(run.failed) or 0) > 0 then notes[1] = ("%d failed"):format(run.failed) end
  if type(run.resumed_from) == "string" then notes[#notes + 1] = "resumes " .. run.resumed_from end
  return table.concat(notes, ", ")
end

--- A table of runs, as `mpreg runs` lists them.
---@param runs table[]
---@param opts? { width?: number, color?: boolean }
---@return string
function M.table(runs, opts)
  local moment = require "mpreg.render.deploy".moment
  local rows = {}
  for i, run in ipairs(runs) do
    rows[i] = { run.run_id, type(run.name) == "string" and run.name or "", run.status,
      moment(run.started_at), type(run.total_ms) == "number" and text.duration(run.total_ms) or "",
      ("%d/%d"):format(tonumber(run.succeeded) or 0, tonumber(run.steps) or 0),
      type(run.node) == "string" and run.node or "", note(run) }
  end
  return table_of.render(COLUMNS, rows, opts)
end

local OUTCOMES = { { "stopped", "stopped" }, { "done", "done" },
  { "never_started", "never started" }, { "unreachable", "out of reach" } }

--- What became of the steps of a cancelled run: `stopped 3, done 2, never started 5`.
---@param receipts { name: string, outcome: string }[]
---@return string  empty without any
function M.receipts(receipts)
  local counts, parts = {}, {}
  for _, receipt in ipairs(type(receipts) == "table" and receipts or {}) do
    counts[receipt.outcome] = (counts[receipt.outcome] or 0) + 1
  end
  for _, outcome in ipairs(OUTCOMES) do
    if counts[outcome[1]] then
      parts[#parts + 1] = ("%s %d"):format(outcome[2], counts[outcome[1]])
    end
  end
  return table.concat(parts, ", ")
end

local OUTCOME_STYLES = { done = "green", stopped = "yellow", unreachable = "red" }

--- What `mpreg cancel` says.
---@param answer table
---@param opts? { width?: number, color?: boolean }
---@return string
function M.cancelled(answer, opts)
  local head = ("Run %s: %s"):format(text.clean(answer.run_id), text.clean(answer.status))
  local receipts = M.receipts(answer.steps)
  if receipts ~= "" then head = head .. " · " .. receipts end
  local rows = {}
  for i, step in ipairs(type(answer.steps) == "table" and answer.steps or {}) do
    rows[i] = { step.name, step.outcome }
  end
  if #rows == 0 then return head .. "\n" end
  return head .. "\n\n" .. table_of.render({ { title = "STEP" },
    { title = "OUTCOME", styles = OUTCOME_STYLES } }, rows, opts)
end

return M
