--- JSON texts ⇄ the MessagePack that travels, without passing through Lua tables: nothing is lost.
---
--- Failures are ERROR tables.

local codec = require "mpreg.codec"

local M = {}

local FILE_BYTES_MAX = 2 ^ 30

local function fault(reason, message, hint)
  return { code = "INVALID_ARGUMENT", reason = reason, message = message, hint = hint }
end

--- The whole of a file, or of stdin (`-`).
---@param path string
---@return string? bytes
---@return table? ERROR
function M.read_file(path)
  local name = path == "-" and "stdin" or path
  local file = io.stdin
  if path ~= "-" then
    local opened, problem = io.open(path, "rb")
    if not opened then return nil, fault("UNREADABLE", "cannot read " .. problem) end
    file = opened
  end
  local bytes, read_problem = file:read(FILE_BYTES_MAX + 1)
  if path ~= "-" then file:close() end
  -- At once at its end: an empty file.
  if not bytes and not read_problem then return "" end
  if not bytes then
    return nil, fault("UNREADABLE", ("cannot read %s: %s"):format(name, read_problem))
  end
  if #bytes > FILE_BYTES_MAX then
    return nil, fault("TOO_LARGE", ("%s is larger than 1 GiB"):format(name))
  end
  return bytes
end

--- MessagePack of a JSON text.
---@param text string
---@param what string  how an error calls the text
---@param opts? { graph: boolean }
---@return string? bytes
---@return table? ERROR
function M.decode(text, what, opts)
  local bytes, problem = codec.json_to_msgpack(text, opts)
  if bytes then return bytes end
  local place = ""
  if problem.line and text:find("\n", 1, true) then
    place = (" at line %d, column %d"):format(problem.line, problem.column)
  elseif problem.column then
    place = (" at column %d"):format(problem.column)
  end
  if problem.path and problem.path ~= "" then place = place .. (" (%s)"):format(problem.path) end
  return nil, fault("BAD_JSON", ("%s%s: %s"):format(what, place, problem.message))
end

--- The JSON text of MessagePack.
---@param bytes string
---@param opts? { pretty?: boolean, sort_keys?: boolean }
---@return string? text
---@return table? ERROR
function M.encode(bytes, opts)
  local text, problem = codec.msgpack_to_json(bytes, opts)
  if text then return text end
  local path = problem.path and problem.path ~= "" and problem.path .. ": " or ""
  return nil, {
    code = "INTERNAL", reason = "UNENCODABLE", message = "no JSON: " .. path .. problem.message,
    hint = "print it without -o json",
  }
end

--- MessagePack of an ARG: JSON, `@FILE`, `-`, or else a string. What begins like an object, a list
--- or a quoted string must be one, and so must a number.
---@param word string
---@param what string
---@return string? bytes
---@return table? ERROR
function M.argument(word, what)
  if word == "-" or word:sub(1, 1) == "@" and #word > 1 then
    local path = word == "-" and "-" or word:sub(2)
    local text, err = M.read_file(path)
    if not text then return nil, err end
    return M.decode(text, ("%s, %s"):format(what, path == "-" and "stdin" or path))
  end
  local bytes, err = M.decode(word, what)
  if bytes then return bytes end
  if word:find("^%s*[%[{\"]") or word:find("^%-?%d+%.?%d*[eE]?[+-]?%d*$") then
    err.hint = "to pass it as text, write it as a JSON string"
    return nil, err
  end
  return codec.encode(word)
end

return M
