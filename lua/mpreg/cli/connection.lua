--- How commands reach a node: where it is, and how much of the deadline is left.

local args = require "mpreg.cli.args"
local client = require "mpreg.client"
local native = require "mpreg.native"

local M = {}

local function check_nodes(nodes)
  for _, node in ipairs(nodes) do
    local _, problem = args.address(node)
    if problem then return args.fault("MPREG_NODE: " .. problem) end
  end
end

--- Connects as the flags say.
---@param options table  of the command line: node, timeout
---@return table? client
---@return table|function  ERROR, or a function that gives the milliseconds left (nil: no deadline)
function M.open(options)
  local started = native.now()
  local nodes = client.nodes(options.node)
  local err = check_nodes(nodes)
  if err then return nil, err end
  local c
  c, err = client.connect { nodes = nodes, timeout_ms = options.timeout }
  if not c then return nil, err end
  return c, function()
    if not options.timeout then return nil end
    return math.max(1, math.floor(options.timeout - (native.now() - started) * 1000 + 0.5))
  end
end

--- For commands that ask one question: connects, asks, closes.
---@param options table
---@param what string
---@param payload? string  MessagePack
---@param query? { on?: string, name?: string, options?: table }  the node that shall answer; whom
---  it is about; further options
---@return string? answer  MessagePack
---@return table? ERROR
function M.ask(options, what, payload, query)
  local c, left = M.open(options)
  if not c then return nil, left end
  local answer, err = c:query_bytes(what, payload, {
    timeout_ms = left(), on = query and query.on, name = query and query.name,
    options = query and query.options,
  })
  c:close()
  return answer, err
end

return M
