--- The REPL's commands about runs. Each gets the REPL and the rest of its line; without a RUN the
--- last run of the session is meant.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local recorded = require "mpreg.cli.recorded"
local text = require "mpreg.render.text"

local M = {}

local LISTED_MAX = 20

local function style(repl) return { width = repl.output.width, color = repl.output.color } end

--- The RUN and the flags of a line; nil if it is wrong, which has been said then.
local function read(repl, name, rest, known)
  local flags, id = {}, nil
  for word in rest:gmatch("%S+") do
    if known[word] then
      flags[word] = true
    elseif word:sub(1, 1) == "-" or id then
      return repl:fail(args.fault((":%s knows no '%s'"):format(name, text.clean(word)),
        ("mpreg %s has more flags"):format(name)))
    else
      id = word
    end
  end
  id = id or repl.last_run
  if not id then
    return repl:fail(args.fault((":%s needs RUN: none was run in this session"):format(name),
      ":runs lists those that there are"))
  end
  if not repl:connect() then return nil end
  local found, err = recorded.resolve(repl.link.client, id,
    function() return repl.options.timeout end)
  if not found then return repl:fail(err) end
  return found, flags
end

--- What a question about a run is answered with, in MessagePack; nil if it failed, which has been
--- said.
local function ask(repl, what, id)
  local answer, err = repl.link.client:query_bytes(what, nil,
    { timeout_ms = repl.options.timeout, options = { run = id } })
  if not answer then return repl:fail(err) end
  return answer
end

function M.runs(repl)
  if not repl:connect() then return end
  local merged, err = recorded.gather(repl.link.client,
    { limit = LISTED_MAX, timeout_ms = repl.options.timeout })
  if not merged then return repl:fail(err) end
  for _, silent in ipairs(merged.silent) do
    repl.output:note("no answer from " .. text.clean(silent.node))
  end
  if #merged.runs == 0 then return repl.output:note "no runs" end
  local runs = { unpack(merged.runs, 1, math.min(#merged.runs, LISTED_MAX)) }
  repl.output:write(require "mpreg.render.runs".table(runs, style(repl)))
end

function M.trace(repl, rest)
  local id, flags = read(repl, "trace", rest, { ["--follow"] = true })
  if not id then return end
  local trace = require "mpreg.cli.trace"
  if flags["--follow"] then
    trace.follow(function(on_event)
      return repl.link.client:query_bytes("watch", nil, { on_event = on_event,
        timeout_ms = repl.options.timeout, options = { run = id } })
    end, repl.output)
    return
  end
  local answer = ask(repl, "trace", id)
  if answer then trace.show(codec.decode(answer), repl.output) end
end

function M.why(repl, rest)
  local id = read(repl, "why", rest, {})
  local answer = id and ask(repl, "trace", id)
  if answer then require "mpreg.cli.why".show(codec.decode(answer), repl.output) end
end

function M.cancel(repl, rest)
  local id = read(repl, "cancel", rest, {})
  local answer = id and ask(repl, "cancel", id)
  if not answer then return end
  repl.output:write(require "mpreg.render.runs".cancelled(codec.decode(answer), style(repl)))
end

function M.resume(repl, rest)
  local id = read(repl, "resume", rest, {})
  if not id then return end
  repl:execute(require "mpreg.cli.resume".payload(id))
end

return M
