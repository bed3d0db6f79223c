local render = require "mpreg.render.source"

local SOURCE = [[
#!/usr/bin/lua
local M = {}

--- Adds.
---@param a number
function M.add(a, b)
  local function inner() return "x" end
  return a + b
end

M.sub = function(a) return a end
local function add_all() end
M["mul"] = function() end

return M
]]

describe("render.source", function()
  it("finds a function's part, with the comment above it", function()
    assert.equal('--- Adds.\n---@param a number\nfunction M.add(a, b)\n  local function inner() '
      .. 'return "x" end\n  return a + b\nend\n', render.of_function(SOURCE, "add"))
    assert.equal("M.sub = function(a) return a end\n", render.of_function(SOURCE, "sub"))
    assert.equal('M["mul"] = function() end\n', render.of_function(SOURCE, "mul"))
    assert.is_nil(render.of_function(SOURCE, "all"))
    assert.is_nil(render.of_function("x = = 1", "add"))
    assert.equal("function M.last() end\n", render.of_function("function M.last() end", "last"))
  end)

  it("prints a source as it is, without what a terminal would obey", function()
    assert.equal(SOURCE, render.text(SOURCE))
    assert.equal("x = '\\x1b[2J'\n", render.text("x = '\27[2J'"))
    assert.equal("a\nb\n", render.text("a\r\nb\r\n"))
  end)

  it("colours words, strings, comments and numbers", function()
    local out = render.text('local x = "a\\"b" -- c\nreturn 0x1F, [[\nd]], t[1], inner', {
      color = true })
    assert.equal('\27[34mlocal\27[0m x = \27[32m"a\\"b"\27[0m \27[2m-- c\27[0m\n'
      .. '\27[34mreturn\27[0m \27[36m0x1F\27[0m, \27[32m[[\27[0m\n\27[32md]]\27[0m, '
      .. 't[\27[36m1\27[0m], inner\n', out)
    assert.equal('\27[2m--[[ a\27[0m\n\27[2mb ]]\27[0m \27[34mend\27[0m\n',
      render.text("--[[ a\nb ]] end", { color = true }))
    -- What never ends, ends with the source.
    for _, text in ipairs { '"', "'\\", "[==[", "--[[", "--", "[", "-", "x = [=" } do
      local plain = render.text(text, { color = true }):gsub("\27%[%d*m", "")
      assert.equal(text .. "\n", plain)
    end
  end)
end)
