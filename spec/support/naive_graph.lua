-- What a graph must come to, worked out in the plainest way: every rule of docs/graphs.md once, no
-- care for speed, nothing in common with src/. Calls are invented by a script (graph_driver.c says
-- how); time is a number of nanoseconds that jumps from event to event.
local SKIPPED, MISSING = { "skipped" }, { "missing" }
local RETRIED = "UNAVAILABLE DEADLINE_EXCEEDED RESOURCE_EXHAUSTED ABORTED UNKNOWN INTERNAL"

local function walk(value, path)
  while path ~= "" do
    local key, rest = path:match("^%.?([%w_-]+)(.*)$")
    if not key then key, rest = path:match('^%["?(.-)"?%](.*)$') end
    key = path:match "^%[[-%d]" and tonumber(key) or key
    if type(value) ~= "table" then error(MISSING) end
    if type(key) == "number" and key < 0 then key = #value + 1 + key end
    value, path = value[key], rest
    if value == nil then error(MISSING) end
  end
  return value
end

-- A template's value; raises SKIPPED or MISSING. Without an item in `env`, $item is left alone.
local function eval(t, env)
  if type(t) ~= "table" then return t end
  if t["$lit"] ~= nil then return t["$lit"] end
  if t["$item"] then return env.item == nil and t or walk(env.item, t["$item"]) end
  if t["$index"] then return env.index end
  local copy, name, path = {}, (t["$ref"] or ""):match("^([%w_-]+)(.*)$")
  if not name then
    for k, v in pairs(t) do copy[k] = eval(v, env) end
    return copy
  end
  local s, ok, value = env.steps[name], false, SKIPPED
  local base = env.input
  if s then base = s.result end
  if not s or s.status ~= "skipped" then ok, value = pcall(walk, base, path) end
  if ok then return value end
  if t.default ~= nil then return eval(t.default, env) end
  return not (env.is_output and value == SKIPPED) and error(value) or nil
end

-- Calls found(name, is_strict) for each reference in a template.
local function references(t, is_strict, found)
  if type(t) ~= "table" or t["$lit"] ~= nil then return end
  if not t["$ref"] then for _, v in pairs(t) do references(v, is_strict, found) end return end
  local name = t["$ref"]:match("^[%w_-]+")
  if name ~= "input" then found(name, is_strict and t.default == nil) end
  references(t.default, false, found)
end

return function(graph, script, input, workers)
  local now, mode, handed = 0, "going", 0
  local steps, list, calls, ready, ended = {}, {}, {}, {}, {}
  local env, run = { steps = steps, input = input }, { status = "running" }
  local limit = graph.timeout_ms and graph.timeout_ms * 1e6 or math.huge
  for i, def in ipairs(graph.steps) do
    steps[def.name] = { def = def, name = def.name, script = script[def.name], status = "pending",
      on_error = def.on_error or "fail", tries = 0, attempts = 0, left = 0, level = 0, deps = {} }
    list[i] = steps[def.name]
  end
  for _, s in ipairs(list) do
    local function found(name, is_strict, is_after)
      s.left = s.left + (s.deps[name] == nil and 1 or 0)
      s.deps[name] = s.deps[name] or is_strict
      steps[name].is_referred = steps[name].is_referred or not is_after
    end
    references({ s.def.args, { s.def.each }, { s.def.when }, { s.def.unless } }, true, found)
    for _, name in ipairs(s.def.after) do found(name, false, true) end
  end
  local function level(s)
    for name in pairs(s.deps) do s.level = math.max(s.level, level(steps[name]) + 1) end
    return s.level
  end
  local function finish(s, status, result)
    s.status, s.ended, s.result, ended[#ended + 1] = status, now, result, s
  end
  local function fault(s, code, reason, i, attempt)
    return { code = code, reason = reason, step = s.name, index = i, attempt = attempt }
  end
  local function fail(s, err)
    s.error = s.error or err
    if s.on_error == "skip" then return finish(s, "skipped") end
    s.defaulted = s.on_error ~= "fail"
    if s.defaulted then return finish(s, "succeeded", s.on_error.default) end
    if mode == "going" then mode, run.error = "failing", err end
    finish(s, err.code == "DEADLINE_EXCEEDED" and "timed_out" or "failed")
  end
  local function hand_out(s, index, args, attempt)
    local c, x = { s = s, index = index, args = args, attempt = attempt }, s.script
    c.at = now + x.queue + x.network + x.run[((index or 0) + 7 * attempt) % #x.run + 1]
    local deadline = math.min(limit, now + (s.def.timeout_ms or math.huge) * 1e6)
    if c.at >= deadline then c.at, c.is_late = deadline, true end
    if s.status == "pending" then s.status, s.started = "running", now end
    s.attempts, handed, c.seq, calls[#calls + 1] = s.attempts + 1, handed + 1, handed + 1, c
  end
  local function element_over(s, index, err, value)
    s.open, s.error = s.open - 1, s.error or err
    if err and s.on_error == "fail" then
      s.items.failed = s.items.failed + 1
      for i = #calls, 1, -1 do if calls[i].s == s then table.remove(calls, i) end end
      return fail(s, err)
    end
    local count = err and s.on_error == "skip" and "skipped" or "succeeded"
    s.items[count] = s.items[count] + 1
    s.defaulted = s.defaulted or err and s.on_error ~= "skip"
    s.values[index] = not err and value or count == "skipped" and SKIPPED or s.on_error.default
    if s.open > 0 or s.next < s.items.total then ready[#ready + 1] = s return end
    local result = {}
    for _, v in ipairs(s.values) do if v ~= SKIPPED then result[#result + 1] = v end end
    finish(s, "succeeded", result)
  end
  local function start_elements(s)
    while s.status == "running" and s.next < s.items.total and s.open < s.concurrency do
      s.next, s.open, env.index = s.next + 1, s.open + 1, s.next + 1
      env.item = s.elements[s.next]
      local ok, args = pcall(eval, s.def.args, env)
      local err = not ok and fault(s, "INVALID_ARGUMENT", "MISSING_FIELD", s.next)
      if ok then hand_out(s, s.next, args, 1) else element_over(s, s.next, err) end
    end
  end
  local function begin(s)
    env.item = nil -- as yet: the references in `args` are looked up before any element
    local ok, value = pcall(eval, s.def.each or s.def.args, env)
    if ok and not s.def.each then return hand_out(s, nil, value, 1) end
    if ok then
      local is_list = type(value) == "table" and (#value > 0 or not next(value))
      if not is_list then return fail(s, fault(s, "INVALID_ARGUMENT", "NOT_A_LIST")) end
      s.elements, s.values, s.next, s.open = value, {}, 0, 0
      s.items = { total = #value, succeeded = 0, failed = 0, skipped = 0, retried = 0 }
      s.concurrency = s.def.concurrency or 4 * workers
      if #value > 0 then ok, value = pcall(eval, s.def.args, env) end
    end
    if value == SKIPPED then return finish(s, "skipped") end
    if not ok then return fail(s, fault(s, "INVALID_ARGUMENT", "MISSING_FIELD")) end
    s.started, s.status, ready[#ready + 1] = now, "running", s
    if s.items.total == 0 then finish(s, "succeeded", {}) end
  end
  local function make_ready(s)
    for _, key in ipairs { "when", "unless" } do
      local ok, value = true, key == "when"
      if s.def[key] then ok, value = pcall(eval, s.def[key], env) end
      local is_false = not ok or value == false
      if value == SKIPPED or is_false == (key == "when") then return finish(s, "skipped") end
    end
    ready[#ready + 1] = s
  end
  local function pass_on(s)
    local is_failure = s.status == "failed" or s.status == "timed_out" or s.is_behind_failure
    for _, d in ipairs(s.is_passed and {} or list) do
      s.is_passed = true -- it may come again, if it failed while it stood in `ready`
      if d.deps[s.name] ~= nil and d.status == "pending" then
        d.left = d.left - 1
        d.is_behind_failure = is_failure
        if is_failure or (d.deps[s.name] and s.status == "skipped") then finish(d, "skipped")
        elseif d.left == 0 and mode == "going" then make_ready(d) end
      end
    end
  end
  local function settle()
    while ended[1] or ready[1] do
      local s = table.remove(ended[1] and ended or ready, 1)
      if s.status == "running" then start_elements(s) elseif s.status ~= "pending" then pass_on(s)
      elseif mode == "going" then begin(s) end
    end
  end
  -- What the call gave: a script with a function is of real calls, one without of invented ones.
  local function result_of(c)
    if c.s.script.fun then return c.s.script.fun(unpack(c.args)) end
    return c.s.script.result or c.args
  end
  local function answer(c)
    local s, fails = c.s, (c.s.script.fails or {})[tostring(c.index or 0)] or 0
    local code = c.is_late and "DEADLINE_EXCEEDED" or fails >= c.attempt and s.script.code
    local is_last = s.script.final and not c.is_late or c.attempt > s.def.retries
    if code and RETRIED:find(code, 1, true) and not is_last then
      s.tries = s.tries + 1
      if c.index and c.attempt == 1 then s.items.retried = s.items.retried + 1 end
      return hand_out(s, c.index, c.args, c.attempt + 1)
    end
    local err = code and fault(s, code, "INVENTED", c.index, c.attempt) or nil
    if c.index then return element_over(s, c.index, err, err or result_of(c)) end
    if err then fail(s, err) else finish(s, "succeeded", result_of(c)) end
  end

  for _, s in ipairs(list) do if level(s) == 0 then make_ready(s) end end
  settle()
  while calls[1] and now < limit do
    table.sort(calls, function(a, b) return a.at < b.at or a.at == b.at and a.seq < b.seq end)
    now = math.min(calls[1].at, limit)
    if now < limit then answer(table.remove(calls, 1)) settle() end
  end
  run.status = mode == "failing" and "failed" or now >= limit and "timed_out" or run.status
  if run.status == "timed_out" then run.error = { code = "DEADLINE_EXCEEDED" } end
  for _, s in ipairs(list) do
    if s.status == "running" then s.error = { reason = "RUN_TIMEOUT" } end
    s.status = ({ running = "timed_out", pending = "cancelled" })[s.status] or s.status
  end
  env.is_output, run.steps, run.ended = true, list, now
  if run.status ~= "running" then return run end
  local template = graph.output or {}
  for _, s in ipairs(graph.output and {} or list) do
    if not s.is_referred then template[s.name] = { ["$ref"] = s.name } end
  end
  local ok, value = pcall(eval, template, env)
  run.status, run.output = ok and "succeeded" or "failed", ok and value or nil
  if not ok then run.error = { reason = "MISSING_FIELD" } end
  return run
end
