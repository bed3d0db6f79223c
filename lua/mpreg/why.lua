--- Why a run took as long as it did, and why it did not succeed: in sentences, with numbers.
---
---     local why = require "mpreg.why"
---     local answer = why.of(run)            -- a run object, as `mpreg run -o json` prints it
---     for _, sentence in ipairs(answer.sentences) do print(sentence) end
---
--- Nothing is asked and nothing is read: what is said follows from the run object alone.
--- mpreg.why.path cuts up the time, mpreg.why.chain the error.

local chain_of = require "mpreg.why.chain"
local split_of = require "mpreg.why.path"
local text = require "mpreg.render.text"

local M = {}

local PATH_NAMES_MAX = 12
local NAMES_MAX = 8
local TRIES_MAX = 5
local WAITED_LONG = 0.05 -- shares of a step below it are not worth words
local NEARLY_ALL = 0.9
local MESSAGE_BYTES_MAX = 2000

local number = split_of.number

local PHRASES = {
  run = function(step) return "executing " .. tostring(step.call) end,
  queue = function() return "waiting for a worker" end,
  network = function() return "on the network" end,
  retry = function() return "in attempts that failed and the pauses after them" end,
  wait = function() return "held back inside the run" end,
  gap = function() return "between steps, at the coordinator" end,
}

local function percent(part, whole)
  return whole > 0 and ("%.0f %%"):format(math.min(100, 100 * part / whole)) or "0 %"
end

local function listed(names, max, separator)
  local clean = {}
  for i, name in ipairs(names) do clean[i] = tostring(name) end
  return text.names(clean, max or NAMES_MAX, separator)
end

--- Names of a path: its first and last ones if it is long.
local function path_text(names)
  if #names <= PATH_NAMES_MAX then return table.concat(names, " → ") end
  local half, out = PATH_NAMES_MAX / 2, {}
  for i = 1, half do out[i] = names[i] end
  out[half + 1] = ("… (+%d)"):format(#names - PATH_NAMES_MAX)
  for i = #names - half + 1, #names do out[#out + 1] = names[i] end
  return table.concat(out, " → ")
end

--- Where a step ran: ` on n1`, ` on n1, n2`, or nothing.
local function where(step)
  if type(step.nodes) == "table" and #step.nodes > 0 then return " on " .. listed(step.nodes) end
  return type(step.node) == "string" and " on " .. step.node or ""
end

--- The parts of a time that matter, the largest first: `3.1 ms waiting for a worker, …`.
local function parts_text(parts, step)
  local keys = {}
  for _, key in ipairs(split_of.PARTS) do
    if parts[key] >= parts.time * WAITED_LONG and parts[key] > 0 then keys[#keys + 1] = key end
  end
  table.sort(keys, function(a, b)
    if parts[a] ~= parts[b] then return parts[a] > parts[b] end
    return a < b
  end)
  for i, key in ipairs(keys) do
    local phrase = PHRASES[key](step)
    keys[i] = ("%s %s%s"):format(text.duration(parts[key]), phrase,
      key == "run" and where(step) or "")
  end
  return table.concat(keys, ", ")
end

local function error_text(err)
  if type(err) ~= "table" then return "no error is known" end
  local name = tostring(err.code)
  if type(err.reason) == "string" then name = name .. "/" .. err.reason end
  local message = tostring(err.message or ""):sub(1, MESSAGE_BYTES_MAX)
  return message ~= "" and ("%s (%s)"):format(message, name) or name
end

-- ------------------------------------------------------------------------------------------------
-- Time
-- ------------------------------------------------------------------------------------------------

--- How the steps of a path stand to the whole. `took`: that this is how long it took is not said
--- yet.
local function say_path(say, split, took)
  local names, time = {}, 0
  for i, item in ipairs(split.path) do
    names[i] = item.step.name
    time = time + item.time
  end
  say(took and "The run took %s, %s of it on its critical path %s."
    or "Of its %s it spent %s on its critical path %s.", text.duration(split.total),
    text.duration(time), path_text(names))
end

--- What all steps of a path spent their time on, if it was not mostly one.
local function say_sums(say, split)
  local sums = { time = 0 }
  for _, key in ipairs(split_of.PARTS) do sums[key] = 0 end
  for _, item in ipairs(split.path) do
    sums.time = sums.time + item.time
    for _, key in ipairs(split_of.PARTS) do sums[key] = sums[key] + item[key] end
  end
  if split.main.time > sums.time * NEARLY_ALL then return end
  local parts = parts_text(sums, { call = "functions" })
  if parts ~= "" then say("The whole path: %s.", parts) end
end

local function say_list(say, step)
  local items, slowest = step.items, step.slowest
  local span = number(step.ended_ms, 0) - number(step.started_ms, 0)
  local sum = number(step.queue_ms, 0) + number(step.network_ms, 0) + number(step.run_ms, 0)
  say("%s called %s for %s%s, %.1f of them at a time.", step.name, tostring(step.call),
    text.count(number(items.total, 0), "element"), where(step),
    span > 0 and math.max(1, sum / span) or 1)
  if type(slowest) ~= "table" or not number(slowest.ended_ms) then return end
  local time = slowest.ended_ms - number(slowest.started_ms, 0)
  local mean = sum / math.max(1, number(items.total, 1))
  local parts = { time = time, run = number(slowest.run_ms, 0), queue = number(slowest.queue_ms, 0),
    network = number(slowest.network_ms, 0), retry = number(slowest.retry_ms, 0), wait = 0,
    gap = 0 }
  say("The slowest, element %s, took %s%s: %s.", tostring(slowest.index), text.duration(time),
    mean > 0 and (", where the mean is " .. text.duration(mean)) or "",
    parts_text(parts, { call = step.call, node = slowest.node }))
end

--- How the attempts of a step that needed several went; the last one of a step that failed is what
--- the run failed with.
local function say_tries(say, step)
  local failed = {}
  for _, try in ipairs(type(step.tries) == "table" and step.tries or {}) do
    if type(try.error) == "table" then failed[#failed + 1] = try end
  end
  if step.status ~= "succeeded" then table.remove(failed) end
  for k = 1, math.min(#failed, TRIES_MAX) do
    local try = failed[k]
    local time = number(try.queue_ms, 0) + number(try.network_ms, 0) + number(try.run_ms, 0)
    local pause = number(try.delay_ms, 0)
    say("Attempt %s of %s%s failed after %s%s: %s.", tostring(try.attempt), step.name, where(try),
      text.duration(time), pause > 0 and (" and was followed by a pause of "
      .. text.duration(pause)) or "", error_text(try.error))
  end
  if #failed > TRIES_MAX then say("%d more attempts failed.", #failed - TRIES_MAX) end
end

local ADVICE = {
  run = function(step)
    if split_of.is_each(step) then
      return ("To win it, make %s faster, or give it more workers."):format(tostring(step.call))
    end
    return ("To win it, make %s faster, or split its work into a list (each)."):format(
      tostring(step.call))
  end,
  queue = function()
    return "To win it, add workers (--workers) or nodes that have it, or run less beside it."
  end,
  network = function(step)
    return ("It took %s in and gave %s: to win it, send less, or run it where its input is made.")
      :format(text.bytes(number(step.bytes_in, 0)), text.bytes(number(step.bytes_out, 0)))
  end,
  retry = function()
    return "To win it, mend what made the attempts fail, or set a shorter backoff_ms."
  end,
  wait = function() return "To win it, hand out less at once: fewer or larger steps." end,
  gap = function() return "To win it, look at what else the coordinating node does." end,
}

local function say_win(say, split, options)
  local main, win = split.main, split.win
  local function words(of)
    local next_one = of["then"] and (", since then %s is the longest"):format(of["then"]) or ""
    return ("wins at most %s (%s)%s; half of its time wins %s"):format(text.duration(of.ms),
      percent(of.ms, split.total), next_one, text.duration(of.half_ms))
  end
  say("Making %s faster %s.", main.step.name, words(split.main_win))
  if win.step ~= main.step.name then
    say("More is to be won at %s: it %s.", win.step, words(win))
  end
  if options.has_advice then say("%s", ADVICE[main.part](main.step)) end
end

--- Where the time went, in sentences.
local function say_time(say, run, split, options)
  local main = split.main
  if not main then
    if options.took then say("The run took %s.", text.duration(split.total)) end
    if #run.steps > 0 then say "No step of it ran." end
    return
  end
  say_path(say, split, options.took)
  say("%s of that is %s (%s): %s.", percent(main.time, split.total), main.step.name,
    text.duration(main.time), parts_text(main, main.step))
  if split_of.is_each(main.step) then say_list(say, main.step) end
  if main.step ~= options.told then say_tries(say, main.step) end
  say_sums(say, split)
  if split.tail > main.time then
    say("%s passed after its last step had ended.", text.duration(split.tail))
  end
  if options.has_win then say_win(say, split, options) end
end

-- ------------------------------------------------------------------------------------------------
-- What went wrong
-- ------------------------------------------------------------------------------------------------

local function place_text(link)
  local place = type(link.file) == "string" and link.file or nil
  if place and link.line then place = ("%s:%d"):format(place, link.line) end
  local fun = link["function"]
  if place and fun then place = ("%s (%s)"):format(place, fun) end
  return place
end

--- The functions that called each other, from `chain[k]` to the one that raised.
local function say_raise(say, chain, k, is_cause)
  local callers = {}
  while chain[k] and chain[k].what == "call" do
    table.insert(callers, 1, place_text(chain[k]) or "?")
    k = k + 1
  end
  local link = chain[k]
  local place = place_text(link)
  local on = link.node and " on " .. link.node or ""
  local called = #callers > 0 and ", called from " .. listed(callers, NAMES_MAX, ", from ") or ""
  if is_cause then
    say("That was caused by %s%s%s.", error_text(link),
      place and ", raised in " .. place .. on or on, called)
  elseif place then
    say("It was raised in %s%s%s.", place, on, called)
  end
  return k + 1
end

--- Which attempt it was: `, in attempt 3 of 3`.
local function attempt_text(link)
  local attempt, attempts = link.attempt, link.attempts
  if not attempt or link.index or (attempts or 1) < 2 then return "" end
  return (", in attempt %d of %d"):format(attempt, attempts)
end

local function say_chain(say, run, chain, step)
  local link, k = chain[2], 3
  if not link or link.what ~= "step" then
    say("The run %s: %s.", run.status == "timed_out" and "timed out" or "failed",
      error_text(run.error))
    k = 2
  else
    local element = link.index and ("element %d of "):format(link.index) or ""
    say("The run %s because %sstep %s (%s) failed%s%s: %s.",
      run.status == "timed_out" and "timed out" or "failed", element, link.step,
      tostring(link.fun or "?"), link.node and " on " .. link.node or "", attempt_text(link),
      error_text(run.error))
  end
  local is_cause = false
  while chain[k] do
    k = say_raise(say, chain, k, is_cause)
    is_cause = true
  end
  if step then say_tries(say, step) end
end

--- Names of the steps in one of some states.
local function in_states(run, ...)
  local wanted, names = {}, {}
  for _, state in ipairs { ... } do wanted[state] = true end
  for _, step in ipairs(run.steps) do
    if wanted[step.status] then names[#names + 1] = step.name end
  end
  return names
end

local function is_or_are(names, word_one, word_many)
  return #names == 1 and word_one or word_many
end

--- What is left of a run that did not succeed, and how to go on.
local function say_rest(say, run, step)
  local skipped = step and chain_of.skipped_because_of(run, step.name) or {}
  if #skipped > 0 then
    say("Because of it %s %s skipped: %s.", text.count(#skipped, "step"),
      is_or_are(skipped, "was", "were"), listed(skipped))
  end
  local cancelled = in_states(run, "cancelled", "timed_out")
  if run.status == "failed" and #cancelled > 0 then
    say("%s %s not to be run any more: %s.", text.count(#cancelled, "step"),
      is_or_are(cancelled, "was", "were"), listed(cancelled))
  end
  local done = in_states(run, "succeeded")
  say("%d of %s succeeded%s.", #done, text.count(#run.steps, "step"),
    #done > 0 and ": " .. listed(done) or "")
  local hint = run.status ~= "lost" and chain_of.hint(run.error)
  if hint then say("Hint: %s.", (hint:gsub("%.$", ""))) end
  local again = in_states(run, "failed", "skipped", "cancelled", "timed_out", "running", "pending")
  if #again > 0 then
    say("mpreg resume %s runs %s, with the code that is live then%s.", tostring(run.run_id),
      listed(again), #done > 0 and (", and keeps %s"):format(listed(done)) or "")
  end
end

--- The steps that were running when a run ended, or that run now.
local function say_running(say, run, states, verb)
  local now = number(run.summary.total_ms, 0)
  local names = {}
  for _, step in ipairs(run.steps) do
    local started = number(step.started_ms)
    if states[step.status] and started then
      local items = type(step.items) == "table"
        and (", %s of %s"):format(tostring(step.items.succeeded), tostring(step.items.total)) or ""
      names[#names + 1] = ("%s (%s%s, for %s%s)"):format(step.name, tostring(step.call),
        where(step), text.duration(math.max(0, number(step.ended_ms, now) - started)), items)
    end
  end
  if #names == 0 then return end
  say("%s %s %s.", text.count(#names, "step"), is_or_are(names, verb[1], verb[2]), listed(names))
end

local function say_receipts(say, run)
  local by_outcome = {}
  for _, receipt in ipairs(type(run.receipts) == "table" and run.receipts or {}) do
    local list = by_outcome[receipt.outcome] or {}
    by_outcome[receipt.outcome] = list
    list[#list + 1] = receipt.name
  end
  local function tell(outcome, one, many)
    local names = by_outcome[outcome]
    if not names then return end
    say("%s %s: %s.", text.count(#names, "step"), is_or_are(names, one, many), listed(names))
  end
  tell("stopped", "stopped, as its worker confirmed", "stopped, as their workers confirmed")
  tell("unreachable", "was out of reach and may go on", "were out of reach and may go on")
  tell("never_started", "never started", "never started")
end

local TIMED_OUT_OR_RUNNING = { timed_out = true, running = true }

local SAY = {
  succeeded = function(say, run, split)
    say_time(say, run, split, { took = true, has_win = true, has_advice = true })
  end,
  failed = function(say, run, split, chain, step)
    say_chain(say, run, chain, step)
    say_rest(say, run, step)
    say_time(say, run, split, { told = step })
  end,
  timed_out = function(say, run, split, chain, step)
    if #chain > 0 then
      say_chain(say, run, chain, step)
    else
      say("The run timed out after %s.", text.duration(split.total))
    end
    say_running(say, run, TIMED_OUT_OR_RUNNING, { "was running then:", "were running then:" })
    say_rest(say, run, step)
    say_time(say, run, split, { told = step, has_win = true })
  end,
  cancelled = function(say, run, split)
    say("The run was cancelled after %s.", text.duration(split.total))
    say_receipts(say, run)
    say_rest(say, run)
    say_time(say, run, split, {})
  end,
  lost = function(say, run, split)
    say("The run was lost%s: the node that coordinated it ended in the middle of it.",
      split.total > 0 and " after " .. text.duration(split.total) or "")
    say_running(say, run, { running = true }, { "was running then:", "were running then:" })
    say_rest(say, run)
  end,
  running = function(say, run, split)
    say("The run goes on, for %s so far.", text.duration(split.total))
    say_running(say, run, { running = true }, { "runs now:", "run now:" })
    local done = in_states(run, "succeeded")
    say("%d of %s succeeded%s.", #done, text.count(#run.steps, "step"),
      #done > 0 and ": " .. listed(done) or "")
    say_time(say, run, split, {})
  end,
}

-- ------------------------------------------------------------------------------------------------
-- The answer
-- ------------------------------------------------------------------------------------------------

local function rounded(ms) return math.floor(ms * 1000 + 0.5) / 1000 end

local function path_document(split)
  local path = {}
  for i, item in ipairs(split.path) do
    path[i] = { step = item.step.name, queue_ms = rounded(item.queue),
      network_ms = rounded(item.network), run_ms = rounded(item.run),
      retry_ms = rounded(item.retry), wait_ms = rounded(item.wait), gap_ms = rounded(item.gap),
      share = split.total > 0 and rounded(100 * item.time / split.total) or 0 }
  end
  return path
end

local function win_document(win)
  return { step = win.step, ms = rounded(win.ms), half_ms = rounded(win.half_ms),
    ["then"] = win["then"] }
end

--- What there is to say of a run: `cause` (`queue`, `network`, `retry`, `compute` or
--- `coordination`) and `step` name what took longest on its critical path, `path` and `win` are
--- the figures, `chain` leads from the symptom of a failure to its cause, and `sentences` say it
--- all.
---@param run table  a run object
---@return { run_id: string, status: string, cause: string?, step: string?, sentences: string[],
---  path: table[], win: table?, chain: table[] }
function M.of(run)
  local sentences = {}
  local function say(format, ...) sentences[#sentences + 1] = format:format(...) end
  local split = split_of.split(run)
  local chain, failed = chain_of.of(run)
  local main = split.main
  local is_tail = main ~= nil and split.tail > main.time
  if type(run.resumed_from) == "string" then
    local kept = {}
    for _, step in ipairs(run.steps) do
      if step.status == "succeeded" and step.attempts == 0 then kept[#kept + 1] = step.name end
    end
    say("It resumes run %s and keeps %s of it%s.", run.resumed_from, text.count(#kept, "result"),
      #kept > 0 and ": " .. listed(kept) or "")
  end
  local describe = SAY[run.status] or SAY.running
  describe(say, run, split, chain, failed)
  return {
    run_id = run.run_id, status = run.status, sentences = sentences,
    cause = main and (is_tail and "coordination" or split_of.CAUSES[main.part]) or nil,
    step = main and not is_tail and main.step.name or nil,
    path = path_document(split), win = split.win and win_document(split.win) or nil, chain = chain,
  }
end

return M
