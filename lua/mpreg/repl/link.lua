--- The REPL's connection: to one node at a time, and to another one when that is gone.
---
--- A session lives on its node as long as the connection, so whoever connects again begins anew.

local client = require "mpreg.client"
local suggest = require "mpreg.suggest"

local M = {}

local ADDRESSES_MAX = 64 -- that one attempt to connect tries
local ASK_S = 5          -- for a node to say who it is

local Link = {}
Link.__index = Link

--- A link that is not up.
---@param given string[]  HOST:PORT, tried in turn
---@param opts? { timeout_ms?: number }  to connect
---@return table
function M.new(given, opts)
  return setmetatable({
    given = given, timeout_ms = opts and opts.timeout_ms, nodes = {}, name = "mpreg",
    cluster = "", addr = nil, client = nil,
  }, Link)
end

--- Asks the node of a client who it is, and who else is there; then the link is to that one.
local function greet(self, c)
  local status, err = c:query("status", nil, { timeout = ASK_S })
  if not status then return nil, err end
  self:close()
  self.client = c
  self.name = tostring(status.node.name)
  self.cluster = tostring(status.node.cluster)
  self.addr = c:node()
  self:look()
  return true
end

--- Asks who is there.
---@return table[]? nodes
---@return table? ERROR
function Link:look()
  local answer, err = self.client:query("nodes", nil, { timeout = ASK_S })
  if not answer then return nil, err end
  self.nodes = answer.nodes
  return answer.nodes
end

--- Where to try: the nodes given, and those that were seen; `last`, if it must be.
local function addresses(self, last)
  local list, seen = {}, { [last or ""] = true }
  local function add(addr)
    if type(addr) == "string" and addr ~= "" and not seen[addr] and #list < ADDRESSES_MAX - 1 then
      seen[addr] = true
      list[#list + 1] = addr
    end
  end
  for _, addr in ipairs(self.given) do add(addr) end
  for _, node in ipairs(self.nodes) do
    if node.state == "alive" or node.state == "suspect" then add(node.addr) end
  end
  list[#list + 1] = last
  return list
end

--- Sees to it that the link is up.
---@return boolean? is_new  true: it was not, and everything is new there; nil: it cannot be
---@return table? ERROR
function Link:ensure()
  local last
  if self.client then
    local is_open, why = self.client:is_open()
    if is_open then return false end
    -- One that is about to stop still answers; whoever goes there has to leave again.
    last = why and why.reason == "DRAINING" and self.addr or nil
  end
  self:close()
  local left, err = addresses(self, last), nil
  while #left > 0 do
    local c, problem = client.connect { nodes = left, timeout_ms = self.timeout_ms }
    -- One that answered says more than one that did not.
    if not c then return nil, err or problem end
    local ok
    ok, err = greet(self, c)
    if ok then return true end
    -- One that is about to stop; those before it did not answer.
    local addr = c:node()
    c:close()
    if err.reason == "INTERRUPTED" then break end
    repeat local tried = table.remove(left, 1) until tried == addr
  end
  return nil, err
end

--- Goes to another node.
---@param name string
---@return boolean? ok
---@return table? ERROR  the link is as it was
function Link:go(name)
  local nodes, err = self:look()
  if not nodes then return nil, err end
  local names, found = {}, nil
  for _, node in ipairs(nodes) do
    names[#names + 1] = tostring(node.name)
    if node.name == name then found = node end
  end
  if not found then
    local near = suggest.nearest(name, names)
    return nil, {
      code = "NOT_FOUND", reason = "NO_NODE", message = ("there is no node %s"):format(name),
      hint = near and ("did you mean %s?"):format(near) or ":nodes lists them",
    }
  end
  local c
  c, err = client.connect { nodes = { found.addr }, timeout_ms = self.timeout_ms }
  if not c then return nil, err end
  local ok
  ok, err = greet(self, c)
  if not ok then c:close() end
  return ok, err
end

--- Ends the connection, and with it the session.
function Link:close()
  if self.client then self.client:close() end
  self.client = nil
end

return M
