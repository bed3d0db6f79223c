--- ERROR tables: what failed, and where, in the form that travels.

local M = {}

local FRAMES_MAX = 50 -- of one call
local FRAMES_TOTAL_MAX = 200 -- of a chain of nested calls

local CODES = {}
for code in ([[CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS
    PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED
    INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED]]):gmatch("%S+") do
  CODES[code] = true
end

--- Whether it is one of the canonical codes.
---@param code any
---@return boolean
function M.is_code(code) return CODES[code] == true end

local Error = { __name = "mpreg.error" }
M.metatable = Error

function Error.__tostring(e)
  local parts = { tostring(rawget(e, "code") or "UNKNOWN") }
  local reason, traceback = rawget(e, "reason"), rawget(e, "traceback")
  if reason ~= nil then
    parts[#parts + 1] = "/" .. tostring(reason)
  end
  parts[#parts + 1] = ": " .. tostring(rawget(e, "message") or "")
  local frame = type(traceback) == "table" and traceback[1]
  if type(frame) == "table" and frame.file then
    parts[#parts + 1] = (" (%s:%s%s)"):format(tostring(frame.file), tostring(frame.line),
      frame.node and (" on " .. tostring(frame.node)) or "")
  elseif rawget(e, "fun") then
    parts[#parts + 1] = (" (in %s)"):format(tostring(rawget(e, "fun")))
  end
  return table.concat(parts)
end

--- Whether it is an ERROR table of ours.
---@param value any
---@return boolean
function M.is_error(value)
  return type(value) == "table" and getmetatable(value) == Error
end

--- Makes an ERROR table. A code that is not canonical becomes the reason.
---@param code string
---@param message string
---@param fields? table  reason, hint, retry, and whatever else shall travel
---@return table
function M.new(code, message, fields)
  local e = {}
  for key, value in pairs(fields or {}) do
    e[key] = value
  end
  if not CODES[code] then
    e.reason = e.reason or code
    code = "UNKNOWN"
  end
  e.code, e.message = code, message
  e.reason = e.reason or "FUNCTION_ERROR"
  return setmetatable(e, Error)
end

local function short_source(info)
  local source = info.source
  return source:sub(1, 1) == "@" and source:sub(2) or info.short_src
end

--- The frames of a dead coroutine, or of the running one from a level on, innermost first.
---@param co thread?
---@param level integer  where to begin
---@param is_user fun(func: function): boolean
---@param names table<function, string>
---@param node string?
---@return table[]
function M.frames(co, level, is_user, names, node)
  local frames = {}
  while #frames < FRAMES_MAX do
    local info
    if co then
      info = debug.getinfo(co, level, "Slnf")
    else
      info = debug.getinfo(level, "Slnf")
    end
    if not info then
      break
    end
    if info.what ~= "C" and is_user(info.func) then
      frames[#frames + 1] = { node = node, file = short_source(info),
        line = info.currentline > 0 and info.currentline or nil,
        ["function"] = names[info.func] or info.name, _short = info.short_src, _func = info.func }
    end
    level = level + 1
  end
  return frames
end

--- Adds the function that was called, if it left its frame by a tail call (`return other(x)`): its
--- line is then where it begins.
---@param frames table[]
---@param func function
---@param names table<function, string>
---@param node string?
function M.add_entry(frames, func, names, node)
  local last = frames[#frames]
  if last and last._func == func then
    return
  end
  local info = debug.getinfo(func, "S")
  if info.what ~= "C" then
    frames[#frames + 1] = { node = node, file = short_source(info), line = info.linedefined,
      ["function"] = names[func], _short = info.short_src, _func = func }
  end
end

--- Takes the "file:line: " that Lua puts in front of a message away, if the frames say the same.
--- LuaJIT no longer knows the line of a dead coroutine's innermost Lua frame: then it is told here.
local function strip_position(message, frames)
  local first = frames[1]
  if first and not first.line then
    local line = message:sub(#first._short + 1):match("^:(%d+): ")
    if line and message:sub(1, #first._short) == first._short then
      first.line = tonumber(line)
    end
  end
  for _, frame in ipairs(frames) do
    local prefix = ("%s:%d: "):format(frame._short, frame.line or 0)
    if message:sub(1, #prefix) == prefix then
      return message:sub(#prefix + 1)
    end
  end
  return message
end

local function text_of(value)
  local ok, text = pcall(tostring, value)
  return ok and type(text) == "string" and text or "a " .. type(value)
end

local FIELDS = {
  code = "string", reason = "string", message = "string", hint = "string", fun = "string",
  step = "string", index = "number", node = "string", version = "string", attempt = "number",
  traceback = "table",
}

--- A copy that holds only what can be sent, with the known fields of the right type.
local function clean(err, is_sendable)
  local e = {}
  for key, value in next, err do
    local expected = FIELDS[key]
    if expected then
      if type(value) == expected then
        e[key] = value
      end
    elseif type(key) == "string" and is_sendable(value) then
      e[key] = value
    end
  end
  return e
end

local function join_frames(e, frames)
  local all = {}
  for _, frame in ipairs(type(e.traceback) == "table" and e.traceback or {}) do
    all[#all + 1] = type(frame) == "table" and frame or nil
  end
  for _, frame in ipairs(frames) do
    frame._short, frame._func = nil, nil
    all[#all + 1] = #all < FRAMES_TOTAL_MAX and frame or nil
  end
  e.traceback = #all > 0 and all or nil
end

local function from_table(err, is_sendable)
  local e = clean(err, is_sendable)
  if not e.message then
    local mt = getmetatable(err)
    local has_text = type(mt) == "table" and type(rawget(mt, "__tostring")) == "function"
    local message = rawget(err, "message")
    e.message = message ~= nil and text_of(message) or has_text and text_of(err)
      or "a table without a message was raised"
  end
  local code = rawget(err, "code")
  if not CODES[code] then
    e.code = "UNKNOWN"
    if code ~= nil and not e.reason and type(code) ~= "table" then
      e.reason = text_of(code)
    end
  end
  if e.retry ~= false then
    e.retry = nil
  end
  if getmetatable(err) ~= Error then
    e.reason = e.reason or "FUNCTION_ERROR"
  end
  return e
end

--- The ERROR table for whatever was raised or returned.
---@param err any
---@param frames table[]  from frames()
---@param is_sendable fun(value: any): boolean
---@return table
function M.from(err, frames, is_sendable)
  local e
  if type(err) == "table" then
    e = from_table(err, is_sendable)
  elseif type(err) == "string" then
    e = { code = "UNKNOWN", reason = "FUNCTION_ERROR", message = strip_position(err, frames) }
  elseif type(err) == "number" or type(err) == "boolean" then
    e = { code = "UNKNOWN", reason = "FUNCTION_ERROR", message = tostring(err) }
  else
    e = { code = "UNKNOWN", reason = "FUNCTION_ERROR",
      message = ("a %s was raised as an error"):format(type(err)) }
  end
  join_frames(e, frames)
  return setmetatable(e, Error)
end

return M
