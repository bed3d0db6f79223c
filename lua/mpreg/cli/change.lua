--- What deploy, rollback and undeploy have in common: they change what is live, and are answered
--- alike.

local client = require "mpreg.client"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local native = require "mpreg.native"
local render = require "mpreg.render.deploy"
local text = require "mpreg.render.text"

local M = {}

local ASK_MS = 2000 -- for what was live before: good to know, no more

local DOING = { deploy = "deploying", rollback = "rolling back", undeploy = "undeploying" }

--- Shows on a terminal that something takes longer than a second; gives what removes that again.
local function progress(action, output)
  if not output.can_draw then return nil, function() end end
  local started = native.now()
  local is_drawn = false
  return function()
    is_drawn = true
    io.stderr:write(("\r%s · %s\27[K"):format(DOING[action],
      text.duration((native.now() - started) * 1000)))
    io.stderr:flush()
  end, function()
    if is_drawn then io.stderr:write("\r\27[K") end
  end
end

--- What is live by deploys: by name, { version, hash }; empty if that cannot be known.
---@param c table  a client
---@return table<string, { version: string, hash: string }>
function M.live(c)
  local answer = c:query_bytes("modules", nil, { timeout_ms = ASK_MS })
  local listed = answer and codec.decode(answer)
  local live = {}
  for _, module in ipairs(type(listed) == "table" and listed.modules or {}) do
    if module.origin == "deployed" and module.live then live[module.name] = module end
  end
  return live
end

--- Asks for a change.
---@param c table  a client
---@param action "deploy"|"rollback"|"undeploy"
---@param query { options: table, payload?: string, timeout_ms?: number, on_tick?: fun() }
---@return string? answer  MessagePack
---@return table? ERROR
function M.ask(c, action, query)
  local options = { by = native.who() }
  for key, value in pairs(query.options) do options[key] = value end
  return c:query_bytes(action, query.payload, {
    timeout_ms = query.timeout_ms, options = options, on_tick = query.on_tick,
  })
end

--- Prints an ERROR of a change and gives its exit code.
---@param err table
---@param output table
---@return number exit_code
function M.fail(err, output)
  output:fail(err)
  return exit.of_deploy(err)
end

--- Asks for a change and prints what came of it.
---@param c table  a client
---@param action "deploy"|"rollback"|"undeploy"
---@param query { options: table, payload?: string, timeout_ms?: number }
---@param output table
---@return number exit_code
function M.execute(c, action, query, output)
  local was = not output.json and M.live(c) or nil
  local on_tick, done = progress(action, output)
  local answer, err = M.ask(c, action, {
    options = query.options, payload = query.payload, timeout_ms = query.timeout_ms,
    on_tick = on_tick,
  })
  done()
  if not answer then return M.fail(client.to_error(err), output) end
  if output.json then return output:document(answer) end
  output:write(render.text(action, codec.decode(answer),
    { width = output.width, color = output.color, was = was }))
  return exit.OK
end

--- The same for a command: connects and closes.
---@param options table  of the command line
---@param action "deploy"|"rollback"|"undeploy"
---@param query { options: table, payload?: string }
---@param output table
---@return number exit_code
function M.run(options, action, query, output)
  local c, left = require "mpreg.cli.connection".open(options)
  if not c then return output:fail(left) end
  local code = M.execute(c, action,
    { options = query.options, payload = query.payload, timeout_ms = left() }, output)
  c:close()
  return code
end

return M
