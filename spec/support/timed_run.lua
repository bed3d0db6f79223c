--- Run objects of runs that never were: a random graph whose steps take random times, worked out
--- as a node with workers enough would have run it.
---
---     local timed_run = require "spec.support.timed_run"
---     local run, truth = timed_run.random(seed)
---     truth.cause, truth.step               -- what was made to take longest, and where

local M = {}

local CAUSES = { "queue", "network", "retry", "compute" }

--- Numbers that a seed determines, whatever Lua: Park and Miller's generator.
local function random_of(seed)
  local state = seed % 2147483646 + 1
  return function(low, high)
    state = state * 16807 % 2147483647
    return low + state % (high - low + 1)
  end
end

local function new_step(draw, i)
  local step = { name = "s" .. i, call = "m.f" .. i, status = "succeeded", node = "n" .. draw(1, 3),
    worker = 1, attempts = 1, depends_on = {}, level = 0, bytes_in = 10, bytes_out = 10,
    queue_ms = draw(0, 500) / 1000, network_ms = draw(0, 500) / 1000,
    run_ms = draw(1, 10000) / 1000, retry_ms = 0, wait_ms = 0 }
  for k = 1, i - 1 do
    if draw(1, i) == 1 and #step.depends_on < 3 then
      step.depends_on[#step.depends_on + 1] = "s" .. k
    end
  end
  return step
end

--- Lets the first attempts of a step fail, so that they and the pauses take `ms`.
local function fail_some(draw, step, ms)
  local count = draw(1, 3)
  local each, at = ms / count, 0
  step.tries, step.attempts, step.retry_ms = {}, count + 1, ms
  for k = 1, count do
    local busy = each * draw(0, 50) / 100
    step.tries[k] = { attempt = k, node = step.node, offset = at, queue_ms = 0, network_ms = 0,
      run_ms = busy, delay_ms = each - busy, error = { code = "UNAVAILABLE", message = "not now" } }
    at = at + each
  end
  step.tries[count + 1] = { attempt = count + 1, node = step.node, offset = at,
    queue_ms = step.queue_ms, network_ms = step.network_ms, run_ms = step.run_ms }
  for k = 1, count do step.run_ms = step.run_ms + step.tries[k].run_ms end
end

--- Makes a list of it: elements that begin in waves, one of which takes longest.
local function spread(draw, step)
  local count = draw(2, 20)
  local slowest = { index = draw(1, count), node = step.node, attempts = step.attempts, offset = 0,
    queue_ms = step.queue_ms, network_ms = step.network_ms, run_ms = step.run_ms,
    retry_ms = step.retry_ms }
  slowest.span = step.span
  step.items = { total = count, succeeded = count, failed = 0, skipped = 0, retried = 0 }
  step.nodes = { step.node }
  step.tries = nil
  -- Beside it the others took a tenth of its time.
  for _, key in ipairs { "queue_ms", "network_ms", "run_ms", "retry_ms" } do
    step[key] = step[key] * (1 + (count - 1) / 10)
  end
  step.slowest = slowest
end

local function inject(draw, step, cause, ms)
  if cause == "queue" then
    step.queue_ms = step.queue_ms + ms
  elseif cause == "network" then
    step.network_ms = step.network_ms + ms
  elseif cause == "compute" then
    step.run_ms = step.run_ms + ms
  end
  step.span = step.queue_ms + step.network_ms + step.run_ms
  if cause == "retry" then
    fail_some(draw, step, ms)
    step.span = step.span + ms
  end
end

--- Gives every step its moments: it begins a little after its last input is there.
local function schedule(draw, steps)
  local by_name, total, last = {}, 0, nil
  for _, step in ipairs(steps) do
    local ready, from = 0, nil
    for _, name in ipairs(step.depends_on) do
      local dep = by_name[name]
      if dep.ended_ms >= ready then ready, from = dep.ended_ms, name end
      step.level = math.max(step.level, dep.level + 1)
    end
    step.before = from
    step.started_ms = ready + draw(0, 100) / 1000
    step.ended_ms = step.started_ms + step.span
    for _, try in ipairs(step.tries or {}) do try.started_ms = step.started_ms + try.offset end
    if step.slowest then
      step.slowest.started_ms = step.started_ms
      step.slowest.ended_ms = step.started_ms + step.slowest.span
    end
    by_name[step.name] = step
    if step.ended_ms >= total then total, last = step.ended_ms, step end
  end
  local path = {}
  while last do
    table.insert(path, 1, last.name)
    last = by_name[last.before]
  end
  return total, path
end

--- A random run, one step of which was held up for longer than all else together takes.
---@param seed number
---@return table run
---@return { cause: string, step: string, ms: number } truth
function M.random(seed)
  local draw = random_of(seed)
  local steps, all = {}, 0
  for i = 1, draw(1, 24) do
    steps[i] = new_step(draw, i)
    all = all + steps[i].queue_ms + steps[i].network_ms + steps[i].run_ms + 1
  end
  local held = draw(1, #steps)
  local truth = { cause = CAUSES[draw(1, #CAUSES)], step = steps[held].name, ms = all * 1.2 }
  for i, step in ipairs(steps) do
    inject(draw, step, i == held and truth.cause or "none", truth.ms)
    if draw(1, 3) == 1 then spread(draw, step) end
  end
  local total, path = schedule(draw, steps)
  local levels = 0
  for _, step in ipairs(steps) do levels = math.max(levels, step.level + 1) end
  return { run_id = "01KB", status = "succeeded", steps = steps, summary = {
    total_ms = total + 0.05, levels = levels, steps = #steps, critical_path = path } }, truth
end

return M
