-- Who may include whom. Reads every #include below src/ and spec/ and refuses what the tables do
-- not allow; also: #pragma once in each header, names written from the repository root, and
-- `<x>_internal.h` only inside its own folder.
--
--   luajit tools/layers.lua [ROOT]        prints the faults; exit 1 if there are any

local M = {}

-- Folder of src/ → folders it may include. `core` stands for every machine below src/core but the
-- composition (core/node); `self` for the folder itself.
local ALLOWED = {
  base = { "self" },
  wire = { "self", "base" },
  json = { "self", "base", "wire" },
  core = { "self", "base", "wire" },
  ["core/node"] = { "self", "base", "wire", "core" },
  sim = { "self", "base", "wire", "core", "core/node" },
  ["host/ring"] = { "self", "base" },
  host = { "self", "base", "wire", "json", "core", "core/node", "host/ring" },
  client = { "self", "base", "wire" },
  binding = { "self", "base", "wire", "json", "client", "host/ring" },
  worker = { "self", "base", "wire", "client", "binding", "host/ring" },
  session = { "self", "base", "wire", "client", "binding", "worker" },
  check = { "self", "base", "wire", "binding", "worker" },
  main = { "any" },
}

-- Folder → families of outside headers beyond the freestanding ones.
local OUTSIDE = {
  json = { "libc", "yajl" },
  host = { "libc", "uv", "openssl", "sqlite" },
  ["host/ring"] = { "libc" },
  sim = { "libc" },
  client = { "libc", "uv", "openssl" },
  binding = { "libc", "uv", "lua", "edit" },
  worker = { "libc", "uv", "lua" },
  session = { "libc", "lua" },
  check = { "libc", "lua" },
  main = { "libc", "uv", "openssl", "sqlite", "lua", "yajl" },
  spec = { "libc", "uv", "openssl", "sqlite", "lua", "yajl", "cmocka" },
}

local function set(text)
  local names = {}
  for name in text:gmatch("%S+") do names[name] = true end
  return names
end

-- What the core may use: types and the memory functions, nothing that does anything. (assert.h for
-- static_assert; the function behind assert() would not pass tools/symbols.sh.)
local FREESTANDING = set [[
  assert.h float.h inttypes.h limits.h stdalign.h stdarg.h stdbool.h stddef.h stdint.h
  stdnoreturn.h string.h
]]

-- A name, or a folder (with its slash).
local FAMILIES = {
  libc = set [[
    ctype.h dirent.h dlfcn.h errno.h fcntl.h fenv.h ftw.h getopt.h glob.h grp.h langinfo.h libgen.h
    locale.h malloc.h math.h netdb.h poll.h pthread.h pwd.h sched.h semaphore.h setjmp.h signal.h
    spawn.h stdatomic.h stdio.h stdlib.h strings.h syslog.h termios.h time.h ucontext.h unistd.h
    x86intrin.h cpuid.h execinfo.h link.h features.h endian.h byteswap.h arpa/ linux/ net/ netinet/
    sys/
  ]],
  uv = set "uv.h uv/",
  openssl = set "openssl/",
  sqlite = set "sqlite3.h",
  edit = set "histedit.h",
  yajl = set "yajl/",
  lua = set "lua.h lauxlib.h lualib.h luajit.h",
  cmocka = set "cmocka.h",
}

local function family_of(header)
  for family, names in pairs(FAMILIES) do
    if names[header] or names[header:match("^[^/]+/") or ""] then return family end
  end
end

-- The folder of the tables that a path belongs to, or nil: "src/core/graph/plan.c" → "core/graph".
local function folder_of(path)
  local folder = path:match("^src/(.+)/[^/]+$")
  if not folder then return nil end
  if ALLOWED[folder] and folder ~= "core" then return folder end
  if folder:match("^core/[%w_]+$") then return folder end
end

-- Name under which the tables know a folder.
local function kind_of(folder)
  if ALLOWED[folder] then return folder end
  return folder:match("^core/") and "core" or folder
end

local function may_include(folder, target)
  if folder == target then return true end
  for _, allowed in ipairs(ALLOWED[kind_of(folder)]) do
    if allowed == "any" or (allowed ~= "self" and allowed == kind_of(target)) then
      -- Machines do not know one another: `core` in a row never stands for a sibling's row.
      return true
    end
  end
  return false
end

local function check_outside(folder, header)
  if FREESTANDING[header] then return nil end
  local family = family_of(header)
  if not family then
    return ("<%s> is in no family of tools/layers.lua"):format(header)
  end
  for _, allowed in ipairs(OUTSIDE[folder] or {}) do
    if allowed == family then return nil end
  end
  return ("%s may not include <%s> (%s)"):format(folder, header, family)
end

local function check_internal(path, target)
  if not target:match("_internal%.h$") then return nil end
  local own = path:match("^(.*)/")
  local theirs = target:match("^(.*)/")
  -- A spec may look inside the folder that it mirrors.
  if own == theirs or own:gsub("^spec/c/", "src/") == theirs then return nil end
  return ('"%s" is internal to %s'):format(target, theirs)
end

local function check_ours(path, folder, target)
  local internal = check_internal(path, target)
  if internal then return internal end
  if folder == "spec" then
    if target:match("^src/") or target:match("^spec/") then return nil end
    return ('"%s" is not written from the repository root'):format(target)
  end
  if not target:match("^src/") then
    return ('"%s" is not written from the repository root, or is not in src/'):format(target)
  end
  local other = folder_of(target)
  if not other then return ('"%s" is in no folder of tools/layers.lua'):format(target) end
  if not may_include(folder, other) then
    return ('%s may not include %s ("%s")'):format(folder, other, target)
  end
end

--- Faults of one file.
---@param path string  from the repository root
---@param text string  the file's content
---@return string[]  "path:line: what is wrong"
function M.check_file(path, text)
  local faults = {}
  local function add(line, fault)
    if fault then faults[#faults + 1] = ("%s:%d: %s"):format(path, line, fault) end
  end
  local folder = path:match("^spec/") and "spec" or folder_of(path)
  if not folder then
    add(1, "its folder is not in tools/layers.lua")
    return faults
  end
  local number, once = 0, false
  for line in (text .. "\n"):gmatch("(.-)\n") do
    number = number + 1
    if line:match("^%s*#%s*pragma%s+once%s*$") then once = true end
    local rest = line:match("^%s*#%s*include%s*(.*)$")
    if rest then
      local outside, ours = rest:match("^<([^>]+)>"), rest:match('^"([^"]+)"')
      if outside then
        add(number, check_outside(folder, outside))
      elseif ours then
        add(number, check_ours(path, folder, ours))
      else
        add(number, "an include that is neither <…> nor \"…\"")
      end
    end
  end
  if path:match("%.h$") and not once then add(1, "a header without #pragma once") end
  return faults
end

--- Faults of all C files below `root`.
---@param root string
---@return string[] faults
---@return integer files  how many were read
function M.check_tree(root)
  local faults, files = {}, 0
  local quoted = "'" .. root:gsub("'", "'\\''") .. "'"
  local list = assert(io.popen("cd " .. quoted .. " && find src spec -name '*.[ch]' | sort"))
  for path in list:lines() do
    local file = assert(io.open(root .. "/" .. path, "rb"))
    for _, fault in ipairs(M.check_file(path, file:read("*a"))) do faults[#faults + 1] = fault end
    file:close()
    files = files + 1
  end
  list:close()
  return faults, files
end

if arg and arg[0] and arg[0]:match("layers%.lua$") then
  local faults, files = M.check_tree(arg[1] or ".")
  for _, fault in ipairs(faults) do print(fault) end
  if files == 0 then print("no C files found") end
  os.exit((#faults > 0 or files == 0) and 1 or 0)
end

return M
