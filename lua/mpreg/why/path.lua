--- Where a run's time went: its critical path split into causes, and what a faster step would win.
---
--- Everything is worked out from the run object. The time of a step on the path, from when its
--- last input was there until it ended, is cut into parts that add up to it:
---
---     gap      nobody waited for anything but the coordinator
---     wait     its call was held back inside the run
---     retry    attempts that failed, and the pauses after them
---     queue    waiting for a worker       } of the attempt
---     network  on the way there and back  } that ended
---     run      in the function            } the step
---
--- What a faster step would win is read off a model of the run: each step begins when its last
--- input is there and takes as long as it did. Nothing in it waits for a free worker, so it
--- promises too much rather than too little.

local M = {}

--- The parts of a step's time, in the order in which they are told.
M.PARTS = { "run", "queue", "network", "retry", "wait", "gap" }

--- What a part is called when it is the cause.
M.CAUSES = { run = "compute", queue = "queue", network = "network", retry = "retry",
  wait = "coordination", gap = "coordination" }

-- Of a path, the steps that took longest are the ones for which the run is worked out again.
local CANDIDATES_MAX = 5
-- A step that wins nearly as much as the best is the better answer if it took longest.
local NEARLY = 0.9

--- A number, or what stands for a missing one (null is no number).
local function number(value, otherwise)
  return type(value) == "number" and value or otherwise
end

local function is_each(step) return type(step.items) == "table" end

-- ------------------------------------------------------------------------------------------------
-- One step
-- ------------------------------------------------------------------------------------------------

--- Queue, network and run, scaled down if they are more than there is room for.
local function fit(times, room)
  local sum = times.queue + times.network + times.run
  local scale = sum > room and room / sum or 1
  return { queue = times.queue * scale, network = times.network * scale, run = times.run * scale }
end

local function times_of(record)
  return { queue = number(record.queue_ms, 0), network = number(record.network_ms, 0),
    run = number(record.run_ms, 0) }
end

--- The attempt that ended a step, when there were several.
local function last_try(step)
  local tries = number(step.attempts, 1) > 1 and type(step.tries) == "table" and step.tries or {}
  local last = tries[#tries]
  return type(last) == "table" and number(last.started_ms) and last or nil
end

--- Of a single call that took `span`: what failed before counts as retries.
local function split_call(step, span)
  local last = last_try(step)
  local retry = 0
  if last then
    retry = math.max(0, math.min(span, last.started_ms - number(step.started_ms, 0)))
  elseif number(step.attempts, 1) > 1 then
    -- Of a record without them, what nothing else explains.
    local times = times_of(step)
    retry = math.min(span, number(step.retry_ms,
      math.max(0, span - times.queue - times.network - times.run)))
  end
  local parts = fit(times_of(last or step), span - retry)
  parts.retry = retry
  return parts
end

--- Of a list: its slowest element's time, and the rest in the proportion of all elements' times.
local function split_list(step, span)
  local parts = { queue = 0, network = 0, run = 0, retry = 0 }
  local slowest = step.slowest
  if type(slowest) == "table" and number(slowest.started_ms) and number(slowest.ended_ms) then
    local own = math.max(0, math.min(span, slowest.ended_ms - slowest.started_ms))
    parts.retry = math.min(own, number(slowest.retry_ms, 0))
    local times = fit(times_of(slowest), own - parts.retry)
    for key, ms in pairs(times) do parts[key] = ms end
    span = span - own
  end
  local all = times_of(step)
  all.retry = number(step.retry_ms, 0)
  local sum = all.queue + all.network + all.run + all.retry
  for key, ms in pairs(all) do
    if sum > 0 then parts[key] = parts[key] + ms * math.min(1, span / sum) end
  end
  return parts
end

--- The parts of a step's time, and their sum.
local function split(step, ready_ms, now_ms)
  local started = number(step.started_ms)
  if not started then
    return { queue = 0, network = 0, run = 0, retry = 0, wait = 0, gap = 0, time = 0 }
  end
  local span = math.max(0, number(step.ended_ms, now_ms) - started)
  local parts = (is_each(step) and split_list or split_call)(step, span)
  local before = math.max(0, started - ready_ms)
  parts.wait = math.min(before, number(step.wait_ms, 0))
  local told = parts.queue + parts.network + parts.run + parts.retry
  parts.gap = before - parts.wait + math.max(0, span - told)
  parts.time = before + span
  return parts
end

-- ------------------------------------------------------------------------------------------------
-- The model
-- ------------------------------------------------------------------------------------------------

local function index_of(run)
  local place = {}
  for i, step in ipairs(run.steps) do place[step.name] = i end
  return place
end

--- The run as times and dependencies: for step i `deps[i]` (places), `gap[i]` and `span[i]`;
--- `order` has each step behind all that it depends on.
local function model_of(run)
  local place = index_of(run)
  local model = { deps = {}, gap = {}, span = {}, ready = {}, order = {}, place = place,
    total = number(run.summary.total_ms, 0), last_end = 0 }
  for i, step in ipairs(run.steps) do
    local deps, ready = {}, 0
    for _, name in ipairs(step.depends_on or {}) do
      local k = place[name]
      if k then
        deps[#deps + 1] = k
        ready = math.max(ready, number(run.steps[k].ended_ms, 0))
      end
    end
    local started = number(step.started_ms)
    local ended = number(step.ended_ms, started and model.total or 0)
    model.deps[i], model.ready[i], model.order[i] = deps, ready, i
    model.gap[i] = started and math.max(0, started - ready) or 0
    model.span[i] = started and math.max(0, ended - started) or 0
    if started then model.last_end = math.max(model.last_end, ended) end
  end
  -- A level is a step's depth.
  table.sort(model.order, function(a, b)
    local x, y = number(run.steps[a].level, 0), number(run.steps[b].level, 0)
    if x ~= y then return x < y end
    return a < b
  end)
  model.tail = math.max(0, model.total - model.last_end)
  return model
end

--- How long the run takes if step `changed` takes `factor` of its time, and the place of the step
--- that then takes longest on the critical path (nil without steps).
local function work_out(model, changed, factor)
  local ends, from = {}, {}
  local last
  for _, i in ipairs(model.order) do
    local ready = 0
    for _, k in ipairs(model.deps[i]) do
      if ends[k] > ready or not from[i] then ready, from[i] = math.max(ready, ends[k]), k end
    end
    ends[i] = ready + (model.gap[i] + model.span[i]) * (i == changed and factor or 1)
    if not last or ends[i] > ends[last] then last = i end
  end
  local longest
  local i = last
  local total = last and ends[last] + model.tail or model.tail
  while i do
    local time = i ~= changed and model.gap[i] + model.span[i] or -1
    if not longest or time > longest.time then longest = { place = i, time = time } end
    i = from[i]
  end
  return total, longest and longest.time > 0 and longest.place or nil
end

--- What step i being faster would win.
local function win_of(run, model, i)
  local as_is = work_out(model, nil, 1)
  local without, longest = work_out(model, i, 0)
  local half = work_out(model, i, 0.5)
  return { step = run.steps[i].name, ms = math.max(0, as_is - without),
    half_ms = math.max(0, as_is - half), ["then"] = longest and run.steps[longest].name or nil }
end

-- ------------------------------------------------------------------------------------------------
-- The path
-- ------------------------------------------------------------------------------------------------

--- The step that the end of the run depends on most: of a run that goes on the one that runs
--- longest, else the one that ended last.
local function last_step(run)
  local last, longest
  for i, step in ipairs(run.steps) do
    local started, ended = number(step.started_ms), number(step.ended_ms)
    if started and not ended and (not longest or started < run.steps[longest].started_ms) then
      longest = i
    elseif started and ended and (not last or ended > run.steps[last].ended_ms) then
      last = i
    end
  end
  return longest or last, longest ~= nil
end

--- The places of the steps on the critical path, as the run tells them, or, if it goes on or does
--- not tell, from the last step back through whichever input ended last.
local function critical_path(run, model)
  local last, is_going_on = last_step(run)
  local told = not is_going_on and run.summary.critical_path
  local path = {}
  for _, name in ipairs(type(told) == "table" and told or {}) do
    path[#path + 1] = model.place[name]
  end
  if #path > 0 then return path end
  local function later(a, b)
    return not b or number(run.steps[a].ended_ms, -1) > number(run.steps[b].ended_ms, -1)
  end
  local reversed = {}
  while last and #reversed <= #run.steps do
    reversed[#reversed + 1] = last
    local before
    for _, k in ipairs(model.deps[last]) do
      if later(k, before) then before = k end
    end
    last = before
  end
  for k = #reversed, 1, -1 do path[#path + 1] = reversed[k] end
  return path
end

local function largest_part(parts)
  local largest
  for _, key in ipairs(M.PARTS) do
    if not largest or parts[key] > parts[largest] then largest = key end
  end
  return largest
end

--- The best thing to make faster, preferring the step that took longest.
local function best_win(run, model, path, main)
  local candidates = {}
  for k, item in ipairs(path) do candidates[k] = item end
  table.sort(candidates, function(a, b)
    if a.time ~= b.time then return a.time > b.time end
    return a.place < b.place
  end)
  local own = win_of(run, model, main.place)
  local best = own
  for k = 1, math.min(#candidates, CANDIDATES_MAX) do
    if candidates[k] ~= main then
      local win = win_of(run, model, candidates[k].place)
      if win.ms > best.ms then best = win end
    end
  end
  return own.ms >= best.ms * NEARLY and own or best, own
end

--- Splits a run's critical path. `path`: for each step on it that ran, its record, its place, its
--- parts by name and their sum `time`. `main`: the one of them that took longest, and `part` which
--- of its parts is the largest. `win`: what to make faster; `main_win`: what making `main` faster
--- would win. `tail`: from the last step's end to the run's.
---@param run table
---@return { path: table[], main: table?, win: table?, main_win: table?, tail: number,
---  total: number }
function M.split(run)
  local model = model_of(run)
  local result = { path = {}, tail = model.tail, total = model.total }
  for _, i in ipairs(critical_path(run, model)) do
    local step = run.steps[i]
    if number(step.started_ms) then
      local item = split(step, model.ready[i], model.total)
      item.step, item.place, item.part = step, i, largest_part(item)
      result.path[#result.path + 1] = item
      if not result.main or item.time > result.main.time then result.main = item end
    end
  end
  if result.main then
    result.win, result.main_win = best_win(run, model, result.path, result.main)
  end
  return result
end

M.is_each = is_each
M.number = number

return M
