--- A client of the native protocol on the specs' own event loop: many requests at once on one
--- connection, each with the times at which it was sent and answered. Written from the protocol
--- alone, so that it also shows that what the node sends is what the protocol says.
---
---     local c = client.connect(n)                    -- a node of spec.support.node
---     local r = c:call("mpreg.echo", { 1 }, { timeout_ms = 200 })
---     r.on_done = function(r) … end                  -- called once when it is answered
---     c:wait(r)                                      -- r.result or r.error, r.ms
---     c:close()

local uv = require "luv"
local codec = require "mpreg.codec"
local node = require "spec.support.node"

local M = {}

local MAGIC = "\157mprg\1\0\0"
local CALL, RUN, CANCEL, QUERY = 1, 2, 3, 4
local RESULT, ERROR, EVENT, GOAWAY = 16, 17, 18, 19

local Client = {}
Client.__index = Client

local Request = {}
Request.__index = Request

local function le(value, bytes)
  local out = {}
  for i = 1, bytes do
    out[i] = string.char(value % 256)
    value = math.floor(value / 256)
  end
  return table.concat(out)
end

local function from_le(text, first, bytes)
  local value = 0
  for i = first + bytes - 1, first, -1 do value = value * 256 + text:byte(i) end
  return value
end

local function frame(kind, id, meta, payload)
  return le(#meta + #payload, 4) .. le(kind, 1) .. "\0" .. le(#meta, 2) .. le(id, 8) .. meta
    .. payload
end

local function take_frame(self, kind, id, payload)
  if kind == GOAWAY then
    self.is_going_away = true
    return
  end
  local request = self.requests[id]
  if not request then error("an answer to nothing: " .. tostring(id)) end
  if kind == EVENT then
    request.events[#request.events + 1] = codec.decode(payload)
    return
  end
  assert(kind == RESULT or kind == ERROR, "an unknown kind of frame")
  assert(not request.done, "a second answer")
  request.done = true
  request.ended = uv.hrtime()
  request.ms = (request.ended - request.sent) / 1e6
  request.place = self.answered + 1
  self.answered = self.answered + 1
  self.requests[id] = nil
  if kind == RESULT then
    request.result = codec.decode(payload)
  else
    request.error = codec.decode(payload)
    request.code = request.error.code .. "/" .. tostring(request.error.reason)
  end
  if request.on_done then request.on_done(request) end
end

local function take(self)
  if not self.has_preface then
    if #self.input < 8 then return end
    assert(self.input:sub(1, 5) == MAGIC:sub(1, 5), "not the preface of a node")
    self.input = self.input:sub(9)
    self.has_preface = true
  end
  local at = 1
  while #self.input - at + 1 >= 16 do
    local size = from_le(self.input, at, 4)
    if #self.input - at + 1 < 16 + size then break end
    local kind, meta_size = self.input:byte(at + 4), from_le(self.input, at + 6, 2)
    local id = from_le(self.input, at + 8, 8)
    local payload = self.input:sub(at + 16 + meta_size, at + 15 + size)
    at = at + 16 + size
    take_frame(self, kind, id, payload)
  end
  self.input = self.input:sub(at)
end

--- Connects to a node (or { port = … }).
---@return table client
function M.connect(to)
  local self = setmetatable({ requests = {}, input = "", last_id = 0, answered = 0 }, Client)
  self.tcp = uv.new_tcp()
  self.tcp:nodelay(true)
  self.tcp:connect("127.0.0.1", to.port, function(err)
    self.failure = err
    if err then return end
    self.is_connected = true
    self.tcp:read_start(function(read_err, data)
      if not data then
        self.is_closed = true
        self.failure = read_err
        return
      end
      self.input = self.input .. data
      take(self)
    end)
  end)
  self.tcp:write(MAGIC)
  node.eventually(function() return self.has_preface or self.failure end, "the node's preface")
  if self.failure then error("cannot connect: " .. self.failure, 2) end
  return self
end

local function request_of(self, kind, meta, payload)
  self.last_id = self.last_id + 1
  local request = setmetatable({ id = self.last_id, events = {}, sent = uv.hrtime() }, Request)
  self.requests[request.id] = request
  self.tcp:write(frame(kind, request.id, meta, payload))
  return request
end

--- Sends a call. `opts`: timeout_ms, and what else a call may ask for (retries, needs …).
---@param fun string
---@param args? table  a list
---@param opts? table
---@return table request  done, result or error and code, ms, place (in the order of answers)
function Client:call(fun, args, opts)
  local options = {}
  for key, value in pairs(opts or {}) do
    if key ~= "timeout_ms" then options[key] = value end
  end
  local meta = codec.encode(codec.array { fun, opts and opts.timeout_ms or codec.null, options })
  args = args or {}
  return request_of(self, CALL, assert(meta), assert(codec.encode_args(unpack(args, 1, args.n
    or #args))))
end

--- Sends a graph.
function Client:run(graph, opts)
  return request_of(self, RUN, assert(codec.encode(codec.array { opts or {} })),
    assert(codec.encode(graph)))
end

--- Asks for a document. `options`: on, the node that shall answer; name.
---@return table request
function Client:ask(what, options)
  return request_of(self, QUERY, assert(codec.encode(codec.array { what, options })), "")
end

--- Asks for a document and waits for it.
function Client:query(what, options) return self:result(self:ask(what, options)) end

--- Asks the node to cancel a request.
function Client:cancel(request)
  self.tcp:write(frame(CANCEL, request.id, "", ""))
end

--- Waits for one request or a list of them, and gives it back.
function Client:wait(what, seconds)
  local list = getmetatable(what) == Request and { what } or what
  node.eventually(function()
    for i = 1, #list do
      if not list[i].done then
        if self.is_closed then error("the node closed the connection", 0) end
        return false
      end
    end
    return true
  end, ("%d answers"):format(#list), seconds or 60)
  return what
end

--- Waits for a request and gives its result; raises its error.
function Client:result(request, seconds)
  self:wait(request, seconds)
  if request.error then
    error(("%s: %s"):format(request.code, tostring(request.error.message)), 2)
  end
  return request.result
end

function Client:close()
  if not self.tcp:is_closing() then self.tcp:close() end
  uv.run("nowait")
end

return M
