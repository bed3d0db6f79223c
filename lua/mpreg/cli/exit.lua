--- Exit codes: they say *when* something failed.
---
---     0  success                          4  the request's own deadline
---     1  it failed after it began         5  refused by policy
---     2  refused before anything ran      130  interrupted
---     3  no node reachable, or none can serve it: nothing began
---
--- An ERROR of a call whose function began carries `attempt`; one that was refused carries none.

local M = {}

M.OK = 0
M.FAILED = 1
M.REFUSED = 2
M.UNSERVED = 3
M.DEADLINE = 4
M.POLICY = 5
M.INTERRUPTED = 130

-- Reasons that always mean that something had begun, though the code alone would not.
local BEGAN = {
  NODE_LOST = true, WORKER_LOST = true, WORKER_MEMORY = true, CONNECTION_LOST = true,
  COORDINATOR_LOST = true, RESULT_LOST = true, SESSION_LOST = true,
}

-- Reasons that always mean that what was asked for makes no sense, as a wrong flag does: nothing
-- ran.
local REFUSED = {
  RUN_SUCCEEDED = true, RUN_GOES_ON = true, GRAPH_CHANGED = true, UNKNOWN_STEP = true,
}

-- Of errors that tell of nothing begun.
local BY_CODE = {
  INVALID_ARGUMENT = M.REFUSED,
  OUT_OF_RANGE = M.REFUSED,
  UNIMPLEMENTED = M.REFUSED,
  ALREADY_EXISTS = M.REFUSED,
  NOT_FOUND = M.UNSERVED,
  FAILED_PRECONDITION = M.UNSERVED,
  UNAVAILABLE = M.UNSERVED,
  RESOURCE_EXHAUSTED = M.UNSERVED,
  DEADLINE_EXCEEDED = M.DEADLINE,
  PERMISSION_DENIED = M.POLICY,
  UNAUTHENTICATED = M.POLICY,
}

--- The exit code of an ERROR.
---@param err table
---@return number
function M.of_error(err)
  if err.reason == "INTERRUPTED" then return M.INTERRUPTED end
  if err.reason == "TOO_LARGE" and not err.attempt then return M.REFUSED end
  if REFUSED[err.reason] and not err.attempt then return M.REFUSED end
  if err.code == "DEADLINE_EXCEEDED"
    and (err.reason == nil or err.reason == "DEADLINE_EXCEEDED" or err.reason == "NO_ANSWER") then
    return M.DEADLINE
  end
  if (tonumber(err.attempt) or 0) >= 1 or BEGAN[err.reason] then return M.FAILED end
  return BY_CODE[err.code] or M.FAILED
end

--- The exit code of an ERROR that a question about a run was answered with. The run began, what
--- was asked for did not.
---@param err table
---@return number
function M.of_question(err)
  if err.code == "UNAVAILABLE" then return M.UNSERVED end
  return M.of_error(err)
end

-- Of a deploy: it was refused before it was looked at; nobody was there to take it.
local NOT_BEGUN = { BAD_OPTION = true, UNKNOWN_QUERY = true }
local NOT_TAKEN = { NO_NODE = true, DRAINING = true, SHUTTING_DOWN = true }

--- The exit code of an ERROR that a deploy, a rollback or an undeploy was answered with: the node
--- had begun to look at it, so a refusal is a failure, whatever its code.
---@param err table
---@return number
function M.of_deploy(err)
  local code = M.of_error(err)
  if code == M.UNSERVED then
    return err.code == "UNAVAILABLE" and NOT_TAKEN[err.reason] and code or M.FAILED
  end
  -- A flag that makes no sense, and a node that is older than the command: nothing began.
  if code == M.REFUSED then return NOT_BEGUN[err.reason] and code or M.FAILED end
  return code
end

--- The exit code of a run object: it began, so whatever failed failed afterwards.
---@param run table
---@return number
function M.of_run(run)
  if run.status == "succeeded" then return M.OK end
  if run.status == "timed_out" then return M.DEADLINE end
  return M.FAILED
end

return M
