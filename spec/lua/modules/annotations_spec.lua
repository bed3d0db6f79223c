-- The comments are the documentation, in `mpreg functions` and in docs/modules.md: these specs
-- hold them to the functions.

local FILES = { "modules/csv.lua", "modules/json.lua", "modules/mpreg.lua", "modules/stats.lua",
  "modules/tables.lua", "modules/text.lua", "modules/time.lua", "examples/hello/hello.lua",
  "examples/quakes/quakes.lua" }

local function contents(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read("*a")
  file:close()
  return text
end

-- Public functions of a module's file: { name, parameters, comment }.
local function functions_in(path)
  local found, comment = {}, {}
  for line in contents(path):gmatch("([^\n]*)\n") do
    local name, parameters = line:match("^function ([%a_][%w_]*%.[%w_]+)%((.-)%)")
    if name then
      found[#found + 1] = { name = name, parameters = parameters, comment = comment }
    end
    if line:find("^%-%-%-") then
      comment[#comment + 1] = line
    else
      comment = {}
    end
  end
  return found
end

describe("the comments of modules", function()
  it("find functions in every file", function()
    for _, path in ipairs(FILES) do assert.is_true(#functions_in(path) > 0, path) end
  end)

  it("say what a function does, each parameter in order, and the result", function()
    for _, path in ipairs(FILES) do
      for _, fun in ipairs(functions_in(path)) do
        local named, returns = {}, 0
        for _, line in ipairs(fun.comment) do
          local name = line:match("^%-%-%-@param ([%w_.]+)%??%s+%S")
          if name then named[#named + 1] = name end
          if line:find("^%-%-%-@return %S") then returns = returns + 1 end
        end
        local place = path .. ": " .. fun.name
        assert.is_truthy((fun.comment[1] or ""):find("^%-%-%- %u"), place)
        assert.are.equal((fun.parameters:gsub("%s", "")), table.concat(named, ","), place)
        assert.are.equal(1, returns, place)
      end
    end
  end)

  it("are what the library reads from the files", function()
    local doc = require "mpreg.runtime.doc"
    for _, path in ipairs(FILES) do
      local blocks = doc.parse(contents(path))
      if path ~= "examples/hello/hello.lua" then assert.is_string(blocks.module.doc, path) end
      local count = 0
      for number, block in pairs(blocks) do
        if number ~= "module" and block.returns then
          count = count + 1
          assert.is_string(block.doc, ("%s, line %d"):format(path, number))
          for _, param in ipairs(block.params) do assert.is_string(param.type, param.name) end
        end
      end
      assert.are.equal(#functions_in(path), count, path)
    end
  end)

  it("give a list type to what may return an empty list", function()
    local lists = {}
    for _, path in ipairs(FILES) do
      for _, fun in ipairs(functions_in(path)) do
        for _, line in ipairs(fun.comment) do
          local kind = line:match("^%-%-%-@return (%S+)")
          if kind and kind:find("%[%]$") then lists[fun.name] = kind end
        end
      end
    end
    for _, name in ipairs { "tables.filter", "tables.take", "tables.flatten", "tables.pluck",
      "text.lines", "text.words", "csv.decode", "stats.moving_average", "quakes.largest",
      "quakes.link" } do
      assert.is_not_nil(lists[name], name)
    end
  end)
end)

describe("docs/modules.md", function()
  it("names every function of the shipped modules with its parameters, and no other", function()
    local text = contents("docs/modules.md")
    local reference = text:sub((text:find("## The modules that every node has", 1, true)))
    local known = {}
    for _, path in ipairs(FILES) do
      if path:find("^modules/") then
        for _, fun in ipairs(functions_in(path)) do
          known[fun.name] = true
          assert.is_truthy(reference:find("`" .. fun.name .. "(", 1, true), fun.name)
        end
      end
    end
    for name in reference:gmatch("`([%w_]+%.[%w_]+)%(") do assert.is_true(known[name], name) end
  end)
end)

describe("the module in docs/modules.md", function()
  it("does what the page says", function()
    local source = contents("docs/modules.md"):match("```lua\n(.-)```")
    local rivers = assert(loadstring(source, "=rivers.lua"))()
    assert.are.same({ a = 3.5 }, rivers.highest { { gauge = "a", level = 3.5 } })
    assert.are.same({}, rivers.highest({ { gauge = "a", level = 3.5 } }, 4))
  end)
end)
