--- Following a run: its events as they come, as lines of JSON, as lines, or, on a terminal, as
--- lines with the state of the run below them.

local codec = require "mpreg.codec"
local json = require "mpreg.cli.json"
local progress = require "mpreg.render.progress"

local M = {}

--- Events as lines of JSON.
local function json_lines(output)
  return function(bytes)
    output:write((assert(json.encode(bytes))) .. "\n")
    output:flush()
  end
end

local function write_event(output, event, opts)
  local style = { color = output.color }
  output:write(progress.event_line(event, style) .. "\n")
  local result = opts.trace and progress.result_line(event, style)
  if result then output:write(result .. "\n") end
  output:flush()
end

local CLEAR_LINE = "\r\27[K"

--- Events as lines, and the state of the run in the last line, which is drawn over. It goes to
--- stderr: stdout has nothing but lines.
local function live(output, opts)
  local screen = progress.new { name = opts.name, width = output.width, color = output.color }
  local is_drawn = false
  local function erase()
    if is_drawn then output:draw(CLEAR_LINE) end
    is_drawn = false
  end
  return function(bytes)
    local event = codec.decode(bytes)
    screen:event(event)
    erase()
    write_event(output, event, opts)
    if event.event ~= "run_finished" then
      output:draw(screen:status())
      is_drawn = true
    end
  end, erase
end

--- What is to be called with each event (MessagePack), and when there are no more of them.
---@param output table
---@param opts { name?: string, trace?: boolean }  trace: also the results of steps
---@return fun(event: string) on_event
---@return fun() done
function M.new(output, opts)
  local function nothing() end
  if output.json then return json_lines(output), nothing end
  if output.can_draw then return live(output, opts) end
  return function(bytes) write_event(output, codec.decode(bytes), opts) end, nothing
end

return M
