--- A client of a node: calls, runs and questions, with Lua values.
---
---     local client = require "mpreg.client"
---     local c = assert(client.connect { nodes = { "127.0.0.1:7400" } })
---     print(c:call("hello.greet", "you"))
---     local run, err = c:run(pipeline, { input = { min = 2.5 } })
---     c:close()
---
--- Expected failures come back as nil and an ERROR table. Calls block. The functions that end in
--- `_bytes` take and give MessagePack instead, so that nothing is decoded on the way.

local codec = require "mpreg.codec"
local native = require "mpreg.native"
local pipeline = require "mpreg.pipeline"
local units = require "mpreg.units"

local M = {}

local DEFAULT_NODE = "127.0.0.1:7400"
local QUERIES_MAX = 256 -- that the native side asks at once

local Client = {}
Client.__index = Client

local ERROR = {
  __tostring = function(err)
    return ("%s/%s: %s"):format(tostring(err.code), tostring(err.reason), tostring(err.message))
  end,
}

--- An ERROR as a table, whatever form it comes in.
local function to_error(err)
  if type(err) == "string" then
    local decoded = codec.decode(err)
    err = type(decoded) == "table" and decoded
      or { code = "INTERNAL", reason = "PROTOCOL", message = "the node's error cannot be read" }
  end
  return setmetatable(err, ERROR)
end

local function encode_error(problem, what)
  local path = problem.path and problem.path ~= "" and problem.path or ""
  return to_error {
    code = "INVALID_ARGUMENT", reason = "UNENCODABLE", hint = problem.hint,
    message = ("%s%s: %s"):format(what, path, problem.message),
  }
end

local function milliseconds(timeout, level)
  if timeout == nil then return nil end
  if type(timeout) == "number" then return math.max(1, math.floor(timeout * 1000 + 0.5)) end
  local ms, problem = units.duration_ms(timeout)
  if not ms then error("timeout: " .. problem, level + 1) end
  return ms
end

--- The addresses to try: those given, else `$MPREG_NODE` (several are joined by commas), else this
--- machine's.
---@param nodes? string[]
---@return string[]
function M.nodes(nodes)
  if nodes and #nodes > 0 then return nodes end
  local list = {}
  for word in (os.getenv "MPREG_NODE" or ""):gmatch("[^%s,]+") do list[#list + 1] = word end
  return #list > 0 and list or { DEFAULT_NODE }
end

--- Connects to the first node that answers.
---@param opts? { nodes?: string[], timeout?: string|number }  timeout: `5s`, or seconds
---@return table? client
---@return table? ERROR
function M.connect(opts)
  opts = opts or {}
  local conn, err = native.connect {
    nodes = M.nodes(opts.nodes), timeout_ms = opts.timeout_ms or milliseconds(opts.timeout, 2),
  }
  if not conn then return nil, to_error(err) end
  return setmetatable({ _conn = conn }, Client)
end

--- Calls a function with MessagePack of the list of its arguments.
---@param fun string
---@param args string
---@param opts? table  timeout_ms, version, on, cluster, retries, wait, needs
---@return string? result
---@return table? ERROR
function Client:call_bytes(fun, args, opts)
  local result, err = self._conn:call(fun, args, opts or {})
  if not result then return nil, to_error(err) end
  return result
end

--- Runs a graph in MessagePack (or a map of `pipeline` and `input`).
---@param graph string
---@param opts? table  timeout_ms, trace, follow, detach, topic
---@param on_event? fun(event: string)
---@return string? run
---@return table? ERROR
---@return string? run  of a run that was interrupted, as far as it came
function Client:run_bytes(graph, opts, on_event)
  local run, err, partial = self._conn:run(graph, opts or {}, on_event)
  if not run then return nil, to_error(err), partial end
  return run
end

--- MessagePack of what a query asks for beyond its kind; empty if that is nothing.
local function query_options(opts)
  local options = { on = opts.on, name = opts.name }
  for key, value in pairs(opts.options or {}) do options[key] = value end
  if next(options) == nil then return "" end
  return (assert(codec.encode(options)))
end

--- Asks a node something: the one that is connected, or the one that it shall pass the question on
--- to.
---@param what string
---@param payload? string
---@param opts? { timeout_ms?: number, on?: string, name?: string, options?: table,
---  on_tick?: fun(), on_event?: fun(event: string) }  on: the node that answers; options: further
---  ones of this question; on_tick: called each second until the answer is there; on_event: called
---  with each event that precedes it (then there is no deadline but a given one). Not both
---@return string? answer
---@return table? ERROR
function Client:query_bytes(what, payload, opts)
  opts = opts or {}
  local answer, err = self._conn:query(what, payload,
    { timeout_ms = opts.timeout_ms, options = query_options(opts) }, opts.on_tick, opts.on_event)
  if not answer then return nil, to_error(err) end
  return answer
end

--- Asks many nodes the same, all at once.
---@param what string
---@param nodes string[]
---@param opts? { timeout_ms?: number, options?: table }  options: further ones of this question
---@return table? answers  by the node's name: { answer = MessagePack } or { error = ERROR }
---@return table? ERROR  if nobody could be asked
function Client:query_nodes_bytes(what, nodes, opts)
  local answers = {}
  for first = 1, #nodes, QUERIES_MAX do
    local asked, options = {}, {}
    for i = first, math.min(#nodes, first + QUERIES_MAX - 1) do
      asked[#asked + 1] = nodes[i]
      options[#options + 1] = query_options { on = nodes[i], options = opts and opts.options }
    end
    local list, err = self._conn:queries(what, options,
      { timeout_ms = opts and opts.timeout_ms })
    if not list then return nil, to_error(err) end
    for i, node in ipairs(asked) do
      local value = list[2 * i]
      answers[node] = list[2 * i - 1] and { error = to_error(value) } or { answer = value }
    end
  end
  return answers
end

local function result_of(bytes, err)
  if not bytes then return nil, err end
  return codec.decode(bytes)
end

--- Calls a function: its result, or nil and an ERROR.
---@param fun string
---@param ... any
---@return any result
---@return table? ERROR
function Client:call(fun, ...)
  local args, problem = codec.encode_args(...)
  if not args then
    return nil, encode_error(problem, ("argument %d"):format(problem.argument or 0))
  end
  return result_of(self:call_bytes(fun, args))
end

--- The same with options: `c:with{ timeout = "1s" }:call("a.b", 1)`.
---@param opts { timeout?: string|number, version?: string, on?: string, cluster?: string,
---  retries?: number, wait?: boolean, needs?: string[] }
---@return table  with `call`
function Client:with(opts)
  local options = {}
  for key, value in pairs(opts) do options[key] = value end
  options.timeout_ms = opts.timeout_ms or milliseconds(opts.timeout, 2)
  options.timeout = nil
  local client = self
  return {
    call = function(_, fun, ...)
      local args, problem = codec.encode_args(...)
      if not args then
        return nil, encode_error(problem, ("argument %d"):format(problem.argument or 0))
      end
      return result_of(client:call_bytes(fun, args, options))
    end,
  }
end

--- Runs a pipeline, a graph or (by name) a pipeline of the node: the run object, whatever its
--- status; nil and an ERROR if it was refused.
---@param what table|string
---@param opts? { input?: any, timeout?: string|number, trace?: boolean, topic?: string,
---  on_event?: fun(event: table) }  topic: the run's events are published to it, too
---@return table? run
---@return table? ERROR
function Client:run(what, opts)
  opts = opts or {}
  local graph
  if type(what) == "string" then
    graph = { pipeline = what, input = opts.input }
  elseif pipeline.is_pipeline(what) then
    graph = pipeline.graph(what, opts.input)
  else
    graph = {}
    for key, value in pairs(what) do graph[key] = value end
    if opts.input ~= nil then graph.input = opts.input end
  end
  local bytes, problem = codec.encode(graph)
  if not bytes then return nil, encode_error(problem, "graph") end
  local on_event = opts.on_event and function(event) opts.on_event(codec.decode(event)) end
  return result_of(self:run_bytes(bytes, {
    timeout_ms = opts.timeout_ms or milliseconds(opts.timeout, 2), trace = opts.trace,
    follow = on_event and true or nil, topic = opts.topic,
  }, on_event))
end

--- Asks a node something: "functions", "nodes", "modules", "status", "links" …
---@param what string
---@param payload? any
---@param opts? { timeout?: string|number, on?: string, name?: string, options?: table,
---  on_event?: fun(event: table) }  on: the node that answers; options: further ones of this
---  question; on_event: of "watch", called with each event of the run
---@return any answer
---@return table? ERROR
function Client:query(what, payload, opts)
  opts = opts or {}
  local bytes, problem
  if payload ~= nil then
    bytes, problem = codec.encode(payload)
    if not bytes then return nil, encode_error(problem, "payload") end
  end
  local on_event = opts.on_event and function(event) opts.on_event(codec.decode(event)) end
  return result_of(self:query_bytes(what, bytes, {
    timeout_ms = opts.timeout_ms or milliseconds(opts.timeout, 2), on = opts.on, name = opts.name,
    options = opts.options, on_event = on_event,
  }))
end

--- What an eval of the node side is told: only what it knows of.
local function eval_options(opts)
  local options = {}
  for _, name in ipairs { "name", "columns", "color", "depth", "items", "bytes", "total",
    "values" } do
    options[name] = opts[name]
  end
  return (assert(codec.encode(options)))
end

--- Evaluates Lua source in this connection's session, which has its own global variables, lives on
--- the node and ends with the connection. What it prints goes to `on_output` as it comes.
---@param source string
---@param opts? { name?: string, columns?: number, color?: boolean, depth?: number, items?: number,
---  bytes?: number, total?: number, values?: boolean, timeout?: string|number, timeout_ms?: number,
---  on_output?: fun(text: string) }
---@return { count: number, text: string[], values?: any[] }? result
---@return table? ERROR  of an interrupted one: `cause` is what else went wrong
---@return boolean? is_abandoned  it was interrupted and may still go on: the session is not usable
function Client:eval(source, opts)
  opts = opts or {}
  local on_event = opts.on_output and function(bytes)
    local event = codec.decode(bytes)
    if event.event == "output" and type(event.text) == "string" then opts.on_output(event.text) end
  end
  local result, err, late_result, late_err = self._conn:eval("eval", eval_options(opts), source,
    { timeout_ms = opts.timeout_ms or milliseconds(opts.timeout, 2) }, on_event)
  if result then return codec.decode(result) end
  err = to_error(err)
  if err.reason ~= "INTERRUPTED" then return nil, err end
  local cause = late_err and to_error(late_err)
  if cause and cause.reason ~= "CANCELLED" then err.cause = cause end
  return nil, err, not late_result and not late_err
end

--- What the text, up to the cursor, may go on with: `names` stand for what begins at byte `from`.
---@param text string
---@param opts? { timeout?: string|number }
---@return { from: number, names: string[] }? completion
---@return table? ERROR
function Client:complete(text, opts)
  local answer, err = self._conn:eval("complete", eval_options {}, text,
    { timeout_ms = milliseconds(opts and opts.timeout, 2) })
  if not answer then return nil, to_error(err) end
  return codec.decode(answer)
end

--- Publishes MessagePack of a list of messages, [[topic, data], …]: all of them, or none.
---@param messages string
---@param opts? { timeout_ms?: number }
---@return string? accepted  MessagePack of { publisher, seq, count }: seq is the last one's
---@return table? ERROR
function Client:publish_bytes(messages, opts)
  local accepted, err = self._conn:publish(messages, opts or {})
  if not accepted then return nil, to_error(err) end
  return accepted
end

--- Publishes a message. It is accepted once this returns; who subscribes gets it at most once.
---@param topic string  words joined by dots
---@param data any
---@param opts? { timeout?: string|number }
---@return { publisher: string, seq: number, count: number }? accepted
---@return table? ERROR
function Client:publish(topic, data, opts)
  if data == nil then data = codec.null end
  local bytes, problem = codec.encode(codec.array { codec.array { topic, data } })
  if not bytes then return nil, encode_error(problem, "data") end
  return result_of(self:publish_bytes(bytes, {
    timeout_ms = milliseconds(opts and opts.timeout, 2) }))
end

--- Subscribes to a pattern, and blocks: batches of messages go to `on_batch` as they come, each of
--- one publisher and in its order, until it returns true. While it has not returned, nothing is
--- read: a consumer that is too slow loses messages at the node, which tells how many.
---@param pattern string
---@param opts { since_ms?: number, queue?: number, timeout_ms?: number }  since_ms: messages of so
---  long ago come first; queue: how many may wait at the node
---@param on_subscribed fun(event: string)  it is in force; MessagePack of { subscribed, node }
---@param on_batch fun(messages: string, publisher: string, dropped: number, after_seq: number):
---  boolean?  messages: MessagePack of [[topic, seq, at, data], …]; dropped: so many were lost
---  before them, after the one of number after_seq
---@return boolean? true
---@return table? ERROR
function Client:subscribe_bytes(pattern, opts, on_subscribed, on_batch)
  local ended, err = self._conn:subscribe(pattern, opts, on_subscribed, on_batch)
  if not ended then return nil, to_error(err) end
  return true
end

---@class mpreg.Message
---@field topic string
---@field data any
---@field publisher string  the node that accepted it
---@field seq integer  of its publisher
---@field at integer  Unix time in milliseconds

---@class mpreg.Dropped
---@field dropped integer  messages that matched and were lost
---@field publisher string
---@field after_seq integer  the last one before them; 0: none was

--- Subscribes to a pattern, and blocks: calls `on_message` for each message that matches, and for
--- each loss, until it returns true.
---@param pattern string  words joined by dots; `*` is any word, `#` any number of them
---@param opts? { since?: string|number, queue?: number, timeout?: string|number,
---  on_subscribed?: fun(event: table) }  since: messages of so long ago come first; queue: how many
---  may wait at the node
---@param on_message fun(message: mpreg.Message|mpreg.Dropped): boolean?
---@return boolean? true
---@return table? ERROR
function Client:subscribe(pattern, opts, on_message)
  opts = opts or {}
  return self:subscribe_bytes(pattern, {
    since_ms = milliseconds(opts.since, 2), queue = opts.queue,
    timeout_ms = milliseconds(opts.timeout, 2),
  }, function(event)
    if opts.on_subscribed then opts.on_subscribed(codec.decode(event)) end
  end, function(messages, publisher, dropped, after_seq)
    if dropped > 0
      and on_message { dropped = dropped, publisher = publisher, after_seq = after_seq } then
      return true
    end
    for _, message in ipairs(codec.decode(messages)) do
      local topic, seq, at, data = unpack(message, 1, 4)
      if on_message { topic = topic, data = data, publisher = publisher, seq = seq, at = at } then
        return true
      end
    end
  end)
end

--- Does the connection stand? False also once the node has said that it is about to stop.
---@return boolean
---@return table? ERROR  why not
function Client:is_open()
  local is_open, err = self._conn:is_open()
  return is_open, err and to_error(err)
end

--- HOST:PORT of the node that answered.
---@return string
function Client:node() return self._conn:node() end

--- Closes the connection; requests in flight are cancelled.
function Client:close() self._conn:close() end

M.to_error = to_error

return M
