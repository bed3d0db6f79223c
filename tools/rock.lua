-- The rockspec lists each file of lua/mpreg under its module name, and nothing else.
--
--   luajit tools/rock.lua              prints what differs; exit 1 if anything does
--   luajit tools/rock.lua --write      corrects the rockspec

local ROCKSPEC = "rockspec/mpreg-scm-1.rockspec"

local function modules_of_tree()
  local modules = {}
  local list = assert(io.popen("find lua -name '*.lua' 2>/dev/null | LC_ALL=C sort"))
  for path in list:lines() do
    local name = path:match("^lua/(.+)%.lua$"):gsub("/init$", ""):gsub("/", ".")
    modules[#modules + 1] = { name = name, path = path }
    modules[name] = path
  end
  list:close()
  return modules
end

local function modules_of_rockspec()
  local environment = {}
  local chunk = assert(loadfile(ROCKSPEC))
  setfenv(chunk, environment)()
  return environment.build.modules
end

local tree = modules_of_tree()
if arg[1] == "--write" then
  local lines = {}
  for _, module in ipairs(tree) do
    lines[#lines + 1] = ('    ["%s"] = "%s",\n'):format(module.name, module.path)
  end
  local file = assert(io.open(ROCKSPEC))
  local text = file:read("*a")
  file:close()
  local written, count = text:gsub("(modules = {\n).-(  },\n)", function(first, last)
    return first .. table.concat(lines) .. last
  end)
  assert(count == 1, "no list of modules in " .. ROCKSPEC)
  file = assert(io.open(ROCKSPEC, "w"))
  file:write(written)
  file:close()
  os.exit(0)
end

local rock, bad = modules_of_rockspec(), false
for _, module in ipairs(tree) do
  if rock[module.name] ~= module.path then
    print(('missing: ["%s"] = "%s"'):format(module.name, module.path))
    bad = true
  end
end
for name, path in pairs(rock) do
  if tree[name] ~= path then
    print(('not there: ["%s"] = "%s"'):format(name, path))
    bad = true
  end
end
os.exit(bad and 1 or 0)
