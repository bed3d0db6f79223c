--- Recorded runs: the lists that nodes keep of theirs, put together; and which run a word on the
--- command line means.

local codec = require "mpreg.codec"

local M = {}

-- A node that just died is passed over before anybody gives up waiting for the whole.
local RUNS_TIMEOUT_MS = 5000
local ABBREVIATION_MIN = 6
local ID_BYTES = 26
local CANDIDATES_NAMED_MAX = 4

--- How commands describe their RUN.
M.ARGUMENT = { "RUN", "The run's id; last is the newest of all, and six characters from either end "
  .. "of a recent one's id stand for it." }

--- The newest first.
local function sort(runs)
  table.sort(runs, function(a, b)
    local x, y = tonumber(a.started_at) or 0, tonumber(b.started_at) or 0
    if x ~= y then return x > y end
    return tostring(a.run_id) > tostring(b.run_id)
  end)
  return runs
end

--- Puts answers of nodes together.
---@param answers table<string, { answer?: string, error?: table }>  by node; answer: MessagePack
---@return { runs: table[], dropped: number, silent: { node: string, error: table? }[] }
function M.merge(answers)
  local merged = { runs = codec.array {}, dropped = 0, silent = {} }
  local seen = {}
  for node, told in pairs(answers) do
    local list = told.answer and codec.decode(told.answer)
    if type(list) ~= "table" or type(list.runs) ~= "table" then
      merged.silent[#merged.silent + 1] = { node = node, error = told.error }
    else
      merged.dropped = merged.dropped + (tonumber(list.dropped) or 0)
      for _, run in ipairs(list.runs) do
        if not seen[run.run_id] then merged.runs[#merged.runs + 1] = run end
        seen[run.run_id] = true
      end
    end
  end
  table.sort(merged.silent, function(a, b) return a.node < b.node end)
  sort(merged.runs)
  return merged
end

--- Asks one node, or every node that lives, for its runs.
---@param c table  a client
---@param opts { on?: string, limit?: number, timeout_ms?: number }
---@return table? merged  see `merge`
---@return table? ERROR
function M.gather(c, opts)
  local options = { limit = opts.limit }
  if opts.on then
    local answer, err = c:query_bytes("runs", nil,
      { on = opts.on, options = options, timeout_ms = opts.timeout_ms })
    if not answer then return nil, err end
    return M.merge { [opts.on] = { answer = answer } }
  end
  local nodes, err = c:query_bytes("nodes", nil, { timeout_ms = opts.timeout_ms })
  if not nodes then return nil, err end
  local names = require "mpreg.cli.links".to_ask(codec.decode(nodes).nodes)
  local answers
  answers, err = c:query_nodes_bytes("runs", names, { options = options,
    timeout_ms = math.min(opts.timeout_ms or RUNS_TIMEOUT_MS, RUNS_TIMEOUT_MS) })
  if not answers then return nil, err end
  local merged = M.merge(answers)
  local silent = merged.silent[1]
  -- Nobody told anything: that is no empty list.
  if silent and silent.error and #merged.silent == #names then return nil, silent.error end
  return merged
end

local function is_short(word)
  return #word >= ABBREVIATION_MIN and #word < ID_BYTES and not word:find("[^%w]")
end

--- The one run that a beginning or an end of its id means.
local function find(runs, word)
  local found, upper = {}, word:upper()
  for _, run in ipairs(runs) do
    local id = tostring(run.run_id)
    if id:sub(1, #upper) == upper or id:sub(-#upper) == upper then found[#found + 1] = id end
  end
  if #found == 1 then return found[1] end
  if #found == 0 then
    return nil, { code = "NOT_FOUND", reason = "UNKNOWN_RUN",
      message = ("no recorded run's id begins or ends with %s"):format(word),
      hint = "mpreg runs lists them" }
  end
  return nil, { code = "INVALID_ARGUMENT", reason = "BAD_RUN_ID",
    message = ("%s may be any of %d runs: %s"):format(word, #found,
      require "mpreg.render.text".few(found, CANDIDATES_NAMED_MAX)),
    hint = "write more of its id" }
end

--- The id that a RUN on the command line means. What is no abbreviation is left for the node to
--- judge.
---@param c table  a client
---@param word string
---@param left? fun(): number?  gives the milliseconds that are left
---@return string? run_id
---@return table? ERROR
function M.resolve(c, word, left)
  if word ~= "last" and not is_short(word) then return word end
  local merged, err = M.gather(c, { limit = word == "last" and 1 or nil,
    timeout_ms = left and left() })
  if not merged then return nil, err end
  if word ~= "last" then return find(merged.runs, word) end
  if merged.runs[1] then return tostring(merged.runs[1].run_id) end
  return nil, { code = "NOT_FOUND", reason = "UNKNOWN_RUN", message = "no run is recorded",
    hint = "mpreg run runs a pipeline" }
end

--- For commands that ask about one run: connects, finds out which run is meant, asks, closes.
---@param options table  of the command line: RUN, node, timeout
---@param what string
---@param more? { options?: table, on_event?: fun(event: string) }
---@return string? answer  MessagePack
---@return table? ERROR
function M.ask(options, what, more)
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return nil, left end
  local id, err = M.resolve(c, options.RUN, left)
  local answer
  if id then
    local question = { run = id }
    for key, value in pairs(more and more.options or {}) do question[key] = value end
    answer, err = c:query_bytes(what, nil,
      { timeout_ms = left(), options = question, on_event = more and more.on_event })
  end
  c:close()
  return answer, err
end

return M
