--- Why a run did not succeed: the chain from the symptom to its cause, with node, file and line.
---
--- An ERROR's frames go from the innermost function outwards, its `cause` is what it came from.
--- The chain goes the other way, from what one sees to where it began: the run, the step, the
--- functions that called each other, the one that raised, and the same of each cause.

local M = {}

local CAUSES_MAX = 16
local FRAMES_MAX = 32

local function text(value) return type(value) == "string" and value or nil end

local function frames_of(err)
  local frames = {}
  for _, frame in ipairs(type(err.traceback) == "table" and err.traceback or {}) do
    if type(frame) == "table" and #frames < FRAMES_MAX then frames[#frames + 1] = frame end
  end
  return frames
end

local function link_of(what, err)
  return { what = what, code = text(err.code), reason = text(err.reason),
    message = text(err.message) }
end

--- The functions between a step and what went wrong in it: callers first.
local function add_frames(chain, err)
  local frames = frames_of(err)
  for k = #frames, 2, -1 do
    local frame = frames[k]
    chain[#chain + 1] = { what = "call", node = text(frame.node), file = text(frame.file),
      line = tonumber(frame.line), ["function"] = text(frame["function"]) }
  end
  local link = link_of("raise", err)
  local frame = frames[1] or {}
  link.fun, link.node = text(err.fun), text(frame.node) or text(err.node)
  link.file, link.line = text(frame.file), tonumber(frame.line)
  link["function"] = text(frame["function"])
  chain[#chain + 1] = link
end

--- The step that an error is of.
local function step_of(run, err)
  for _, step in ipairs(run.steps) do
    if step.name == err.step then return step end
  end
end

--- The chain of a run's error: links with `what` (`run`, `step`, `call`, `raise`) and what is
--- known of `step`, `index`, `attempt`, `attempts`, `node`, `file`, `line`, `function`, `fun`,
--- `code`, `reason`, `message`. Empty without an error.
---@param run table
---@return table[] chain
---@return table? step  the record of the step that failed
function M.of(run)
  local err = run.error
  if type(err) ~= "table" then return {} end
  local chain = { link_of("run", err) }
  local step = step_of(run, err)
  if step or text(err.step) then
    local link = link_of("step", err)
    link.step, link.index = text(err.step), tonumber(err.index)
    link.fun, link.node = step and text(step.call), step and text(step.node) or text(err.node)
    link.attempt, link.attempts = tonumber(err.attempt), step and tonumber(step.attempts)
    chain[#chain + 1] = link
  end
  local depth = 0
  while type(err) == "table" and depth < CAUSES_MAX do
    add_frames(chain, err)
    err, depth = err.cause, depth + 1
  end
  return chain, step
end

--- The steps that were skipped because of a step, directly or through others, in the graph's
--- order.
---@param run table
---@param name string
---@return string[]
function M.skipped_because_of(run, name)
  local because, memo = {}, {}
  for _, step in ipairs(run.steps) do
    if step.status == "skipped" then because[step.name] = text(step.because_step) end
  end
  local function leads_to(step)
    local passed = {}
    while step and step ~= name and memo[step] == nil do
      passed[#passed + 1] = step
      -- A loop would be somebody's mistake; it leads nowhere.
      memo[step] = false
      step = because[step]
    end
    local result = step == name or step ~= nil and memo[step]
    for _, each in ipairs(passed) do memo[each] = result end
    return result
  end
  local names = {}
  for _, step in ipairs(run.steps) do
    if because[step.name] and leads_to(step.name) then names[#names + 1] = step.name end
  end
  return names
end

--- The first hint of an error and its causes.
---@param err table
---@return string?
function M.hint(err)
  local depth = 0
  while type(err) == "table" and depth < CAUSES_MAX do
    if text(err.hint) then return err.hint end
    err, depth = err.cause, depth + 1
  end
end

return M
