--- What a command prints, and how it ends.
---
--- Data goes to stdout, all else to stderr. With `-o json` stdout gets exactly one JSON document (a
--- line each, where a command streams). Colours and drawing are for terminals alone.

local exit = require "mpreg.cli.exit"

local M = {}

local Output = {}
Output.__index = Output

--- Raised when stdout is closed: there is nobody left to print for. Only `mpreg.cli` catches it.
M.CLOSED = { closed = true }

--- `opts.json`: one JSON document is wanted. The rest is found out, or given in specs.
---@param opts { json?: boolean }
---@return table output
function M.new(opts)
  local native = require "mpreg.native"
  local has_color = (os.getenv "NO_COLOR" or "") == "" and os.getenv "TERM" ~= "dumb"
  local is_terminal = not opts.json and native.isatty(1)
  return setmetatable({
    json = opts.json or false,
    is_terminal = is_terminal,
    color = is_terminal and has_color,
    err_color = native.isatty(2) and has_color,
    -- In place, so both must be the same terminal's.
    can_draw = is_terminal and native.isatty(2) and os.getenv "TERM" ~= "dumb",
    width = is_terminal and (native.terminal_width() or 80) or nil,
  }, Output)
end

--- Writes to stdout. A closed stdout ends the command.
---@param text string
function Output.write(_, text)
  if not io.stdout:write(text) then error(M.CLOSED, 0) end
end

--- Sends what was written on its way (streams do so after each line).
function Output.flush()
  if not io.stdout:flush() then error(M.CLOSED, 0) end
end

--- A remark to whoever watches.
---@param text string
function Output.note(_, text)
  io.stderr:write(text, "\n")
end

--- Draws: what is drawn over again is no data.
---@param text string
function Output.draw(_, text)
  io.stderr:write(text)
  io.stderr:flush()
end

--- Prints MessagePack as one JSON document.
---@param bytes string
---@return number exit_code
function Output:document(bytes)
  local text, err = require "mpreg.cli.json".encode(bytes)
  if not text then
    err.attempt = 1
    return self:fail(err)
  end
  self:write(text .. "\n")
  return exit.OK
end

--- Prints an ERROR and gives its exit code.
---@param err table
---@return number exit_code
function Output:fail(err)
  if self.json then
    local codec = require "mpreg.codec"
    local bytes = codec.encode { error = err }
    local text = bytes and codec.msgpack_to_json(bytes, { sort_keys = true })
    self:write((text or '{"error":{"code":"INTERNAL","reason":"UNENCODABLE"}}') .. "\n")
  else
    -- What was printed before stands before it, on a terminal too.
    io.stdout:flush()
    io.stderr:write(require "mpreg.render.error".text(err, { color = self.err_color }))
  end
  return exit.of_error(err)
end

--- The texts of several lines right inside a map, taken out of it: name and text, sorted by name.
local function take_pages(value)
  local pages = {}
  for name, item in pairs(value) do
    if type(name) == "string" and type(item) == "string" and item:find("\n.") then
      pages[#pages + 1] = { name = name, text = item }
    end
  end
  table.sort(pages, function(a, b) return a.name < b.name end)
  for _, page in ipairs(pages) do
    local _, lines = page.text:gsub("\n", "")
    value[page.name] = ("(%d lines, below)"):format(lines)
  end
  return pages
end

--- A map with texts of several lines, for people: the texts follow as they are meant to be read.
function Output:pages(value)
  local codec = require "mpreg.codec"
  local text = require "mpreg.render.text"
  local pages = take_pages(value)
  local json = codec.json_encode(value, { pretty = true, sort_keys = true })
  if #pages == 0 or not json then return false end
  self:write(json .. "\n")
  for _, page in ipairs(pages) do
    self:write("\n" .. text.clean(page.text, true):gsub("\n*$", "\n\n"))
  end
  return true
end

--- Prints a value: texts as they are, other scalars plainly, tables as JSON.
---@param bytes string  MessagePack
function Output:value(bytes)
  local codec = require "mpreg.codec"
  local value = codec.decode(bytes)
  if type(value) == "string" then
    local text = require "mpreg.render.text"
    if text.is_utf8(value) then
      -- A text may be anything, also what a terminal takes for commands.
      if self.is_terminal then value = text.clean(value, true) end
      self:write(value:sub(-1) == "\n" and value or value .. "\n")
      return
    elseif not self.is_terminal then
      self:write(value)
      return
    end
  end
  if type(value) == "table" and self.is_terminal and self:pages(value) then return end
  local json = codec.msgpack_to_json(bytes, { pretty = true, sort_keys = true })
  -- Not everything has a JSON form: NaN, infinities.
  self:write((json or require "mpreg.render.value".text(value)) .. "\n")
end

return M
