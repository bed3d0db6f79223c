--- Commands without a node: what it would answer is given, what they print is caught.
---
---     local r = commands.run("nodes", { "-o", "json" }, function(what, query)
---       return { nodes = … }           -- or nil and an ERROR
---     end)
---     r.code, r.out, r.err, r.asked    -- err: the ERROR that was printed
---     r.notes                          -- what went to stderr besides
---
--- Of a query that is watched, and of a run (`run` is what is asked then), the function's fourth
--- argument tells an event.

local args = require "mpreg.cli.args"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"

local M = {}

--- The native connection of mpreg.client, answering from a function.
---@param answer fun(what: string, query: table, payload: any, tell?: fun(event: table)): any,
---  table?
---@param asked? string[]  what was asked is appended
---@return table
function M.conn(answer, asked)
  asked = asked or {}
  local conn = {}
  local function teller(on_event)
    return on_event and function(event) on_event((assert(codec.encode(event)))) end
  end
  local function ask(what, options, payload, on_event)
    local query = options ~= "" and codec.decode(options) or {}
    asked[#asked + 1] = query.on and what .. " on " .. query.on
      or query.name and what .. " " .. query.name or what
    local value, err = answer(what, query, payload and codec.decode(payload), teller(on_event))
    if value == nil then return nil, (assert(codec.encode(err))) end
    return (assert(codec.encode(value)))
  end
  function conn.query(_, what, payload, opts, _, on_event)
    return ask(what, opts.options, payload, on_event)
  end
  function conn.run(_, payload, opts, on_event)
    asked[#asked + 1] = "run"
    local value, err, partial = answer("run", opts, codec.decode(payload), teller(on_event))
    if value == nil then
      return nil, (assert(codec.encode(err))), partial and (assert(codec.encode(partial)))
    end
    return (assert(codec.encode(value)))
  end
  function conn.queries(_, what, list)
    local answers = {}
    for i, options in ipairs(list) do
      local value, err = ask(what, options)
      answers[2 * i - 1], answers[2 * i] = value == nil, value or err
    end
    return answers
  end
  function conn.close() conn.is_closed = true end
  return conn
end

--- Runs a command. `opts`: color and width, as on a terminal.
---@param name string
---@param words string[]
---@param answer fun(what: string, query: table, payload: any, tell?: fun(event: table)): any,
---  table?
---@param opts? { color?: boolean, width?: number }
---@return table
function M.run(name, words, answer, opts)
  local command = require("mpreg.cli." .. name)
  local native = require "mpreg.native"
  local result = { asked = {}, notes = {} }
  local options, err = args.parse(command.command, words)
  if not options then return { code = exit.of_error(err), out = "", err = err } end
  local conn = M.conn(answer, result.asked)
  local connect = native.connect
  native.connect = function() return conn end
  local parts = {}
  local output = require "mpreg.cli.output".new { json = options.output == "json" }
  output.color, output.width = opts and opts.color or false, opts and opts.width
  output.write = function(_, text) parts[#parts + 1] = text end
  output.flush = function() end
  output.note = function(_, note) result.notes[#result.notes + 1] = note end
  output.fail = function(_, failure)
    result.err = failure
    return exit.of_error(failure)
  end
  local ok, code = pcall(command.run, options, output)
  native.connect = connect
  assert(ok, code)
  assert(#result.asked == 0 or conn.is_closed, "the connection stays open")
  result.code, result.out = code, table.concat(parts)
  return result
end

--- What a document that was printed holds.
---@param result table
---@return any
function M.document(result)
  return assert(codec.json_decode(result.out))
end

return M
