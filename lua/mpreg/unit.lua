--- What is deployed together: the files and folders that somebody names, as modules.
---
--- A file's module name is its name without `.lua`; in a folder, the path from that folder with
--- dots, and `init.lua` stands for its folder. In folders `spec`, `*_spec.lua` and what begins with
--- a dot are passed over. These are the rules of `mpreg node --load` (src/host/modules.c), but what
--- a node would leave out with a line in its log is an error here.
---
--- Failures are ERROR tables.

local codec = require "mpreg.codec"
local native = require "mpreg.native"

local M = {}

-- As in src/base/limits.h.
M.MODULES_MAX = 512
M.MODULE_BYTES_MAX = 16 * 2 ^ 20
M.BYTES_MAX = 32 * 2 ^ 20
local NAME_BYTES_MAX = 440
local FOLDER_DEPTH_MAX = 32

local function fault(reason, message, hint)
  return { code = "INVALID_ARGUMENT", reason = reason, message = message, hint = hint }
end

--- Is it a module's name: names of up to 64 letters, digits, _ and -, joined by dots?
---@param name string
---@return boolean
function M.is_module_name(name)
  if #name > NAME_BYTES_MAX then return false end
  for part in (name .. "."):gmatch("(.-)%.") do
    if not part:find("^[%w_][%w_-]*$") or #part > 64 then return false end
  end
  return true
end

--- Does a folder's entry count, going by its name alone?
---@param name string
---@return boolean
function M.is_wanted(name)
  return name:sub(1, 1) ~= "." and name ~= "spec" and not name:find("_spec%.lua$")
end

--- The name of the module in a file: `prefix` are the folders between, with dots.
---@param prefix string
---@param file string  the file's own name
---@return string
function M.module_name(prefix, file)
  local stem = file:gsub("%.lua$", "")
  if stem == "init" and prefix ~= "" then return prefix end
  return prefix == "" and stem or prefix .. "." .. stem
end

-- `found`: modules (a list), by_name, bytes, folders (paths that were read)
local function add_file(found, path, name)
  if not M.is_module_name(name) then
    return fault("BAD_NAME", ("%s: '%s' is no module name: use letters, digits, _ and -, joined by "
      .. "dots"):format(path, name))
  end
  local other = found.by_name[name]
  if other then
    -- The same one twice, by itself and in its folder.
    if native.realpath(other.path) == native.realpath(path) then return nil end
    return fault("DUPLICATE_MODULE", ("%s and %s are both the module %s"):format(other.path, path,
      name), "deploy them one after the other, or name the folder that holds both")
  end
  local file, problem = io.open(path, "rb")
  if not file then return fault("UNREADABLE", "cannot read " .. problem) end
  local source, read_problem = file:read(M.MODULE_BYTES_MAX + 1)
  file:close()
  if read_problem then
    return fault("UNREADABLE", ("cannot read %s: %s"):format(path, read_problem))
  end
  source = source or ""
  found.bytes = found.bytes + #source
  if #source > M.MODULE_BYTES_MAX then
    return fault("TOO_LARGE", path .. ": more than 16 MiB")
  elseif found.bytes > M.BYTES_MAX then
    return fault("TOO_LARGE", "together more than 32 MiB are not deployed at once",
      "deploy them in parts")
  elseif #found.modules == M.MODULES_MAX then
    return fault("TOO_LARGE", ("more than %d modules are not deployed at once"):format(
      M.MODULES_MAX), "deploy them in parts")
  end
  local module = { name = name, source = source, path = path }
  found.by_name[name] = module
  found.modules[#found.modules + 1] = module
end

local add_folder -- forward

local function add_entry(found, path, prefix, entry, depth)
  local inner = path:sub(-1) == "/" and path .. entry.name or path .. "/" .. entry.name
  local stat = native.stat(inner)
  if stat and stat.type == "folder" and depth < FOLDER_DEPTH_MAX then
    return add_folder(found, inner, prefix == "" and entry.name or prefix .. "." .. entry.name,
      depth + 1)
  elseif entry.name:find("%.lua$") then
    return add_file(found, inner, M.module_name(prefix, entry.name))
  end
end

function add_folder(found, path, prefix, depth)
  local entries, problem = native.list(path)
  if not entries then
    return fault("UNREADABLE", ("cannot read %s: %s"):format(path, problem))
  end
  found.folders[#found.folders + 1] = path
  for _, entry in ipairs(entries) do
    local err = M.is_wanted(entry.name) and add_entry(found, path, prefix, entry, depth)
    if err then return err end
  end
end

local function add_path(found, path)
  local stat, problem = native.stat(path)
  if not stat then return fault("UNREADABLE", ("cannot read %s: %s"):format(path, problem)) end
  if stat.type == "folder" then
    local before = #found.modules
    local err = add_folder(found, path, "", 0)
    if not err and #found.modules == before then found.empty = found.empty or path end
    return err
  end
  local file = path:match("[^/]+$")
  if not file:find("%.lua$") then
    return fault("BAD_NAME", path .. ": a module file ends in .lua")
  end
  return add_file(found, path, M.module_name("", file))
end

--- The modules in some files and folders, in ascending order of their names' bytes.
---@param paths string[]
---@return { name: string, source: string, path: string }[]? modules
---@return table? ERROR
---@return string[] folders  that were read
function M.collect(paths)
  local found = { modules = {}, by_name = {}, folders = {}, bytes = 0 }
  for _, path in ipairs(paths) do
    local err = add_path(found, path)
    if err then return nil, err, found.folders end
  end
  if #found.modules == 0 then
    return nil, fault("EMPTY_UNIT", ("there is no module in %s"):format(found.empty or paths[1]),
      "a module is a file that ends in .lua, but not in _spec.lua"), found.folders
  end
  table.sort(found.modules, function(a, b) return a.name < b.name end)
  return found.modules, nil, found.folders
end

--- How tracebacks and errors name a module's file.
---@param name string
---@return string
function M.file_of(name) return name:gsub("%.", "/") .. ".lua" end

--- What a node would say of the first module that is no Lua: the same words.
---@param modules { name: string, source: string }[]
---@return table? ERROR
function M.check(modules)
  for _, module in ipairs(modules) do
    local file = M.file_of(module.name)
    if module.source:sub(1, 1) == "\27" then
      return fault("SYNTAX_ERROR", file .. ": this is bytecode; a module is Lua source")
    end
    local source = module.source:gsub("^\239\187\191", ""):gsub("^#[^\n]*", "")
    local chunk, message = load(source, "@" .. file, "t", {})
    if not chunk then return fault("SYNTAX_ERROR", message) end
  end
end

--- The unit as it travels.
---@param modules { name: string, source: string }[]
---@return string bytes  MessagePack
function M.encode(modules)
  local list = codec.array {}
  for i, module in ipairs(modules) do list[i] = { module.name, module.source } end
  return (assert(codec.encode(list)))
end

return M
