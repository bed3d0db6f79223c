local doc = require "mpreg.runtime.doc"

describe("runtime.doc", function()
  local function block_before(source, marker)
    local number = 0
    for line in (source .. "\n"):gmatch("(.-)\n") do
      number = number + 1
      if line:find(marker, 1, true) then
        return doc.parse(source)[number]
      end
    end
  end

  it("reads text, parameters and the result of a function", function()
    local block = block_before([[
local M = {}

--- Events at or above a magnitude.
---@param events table[]
---@param min number  the magnitude
---@return table[]
function M.filter(events, min) end
]], "function M.filter")
    assert.are.same({ doc = "Events at or above a magnitude.", returns = "table[]",
      params = { { name = "events", type = "table[]" },
        { name = "min", type = "number", doc = "the magnitude" } } }, block)
  end)

  it("knows all ways to write a function", function()
    for _, line in ipairs { "function M.f(x)", "M.f = function(x)", "local function f(x)",
      "  f = function(x)", "local f = function(x)" } do
      assert.are.equal("Text.", block_before("--- Text.\n" .. line .. "\nend", line).doc)
    end
  end)

  it("keeps lines and paragraphs, also those of a parameter", function()
    local block = block_before([[
--- One.
---
--- Two
--- three.
---@param x any  first
---  second
--- @return nil
function f(x) end]], "function f")
    assert.are.equal("One.\n\nTwo\nthree.", block.doc)
    assert.are.equal("first\nsecond", block.params[1].doc)
    assert.are.equal("nil", block.returns)
  end)

  it("reads types with blanks in them", function()
    for text, expected in pairs {
      ["{ name: string, at: number } the rest"] = "{ name: string, at: number }",
      ["table<string, number> counts"] = "table<string, number>",
      ["fun(a: number, b: string): boolean told"] = "fun(a: number, b: string): boolean",
      ["string | number what"] = "string | number",
      ["'a'|'b c' mode"] = "'a'|'b c'",
      ["number"] = "number",
      [""] = "",
    } do
      assert.are.equal(expected, (doc.split_type(text)))
    end
  end)

  it("marks optional parameters in their type", function()
    local source = "---@param n? integer  how many\n---@param ... any\nfunction f() end"
    local block = block_before(source, "function f")
    assert.are.same({ { name = "n", type = "integer?", doc = "how many" },
      { name = "...", type = "any" } }, block.params)
  end)

  it("takes the first result only, and passes over tags that it does not know", function()
    local block = block_before([[
---@generic T
--- Text after a tag is not the function's.
---@return string name  its name
---@return integer age
---@deprecated
function f() end]], "function f")
    assert.are.equal("string", block.returns)
    assert.is_nil(block.doc)
  end)

  it("tells the module's own text from its functions'", function()
    assert.are.equal("Seismic catalogues.",
      doc.parse("--- Seismic catalogues.\nlocal M = {}\n").module.doc)
    assert.are.equal("About.",
      doc.parse("--- About.\n\nlocal x = require 'x'\nlocal M = {}").module.doc)
    assert.is_nil(doc.parse("--- Adds.\nfunction add() end\n").module)
    assert.is_nil(doc.parse("local M = {}\n--- Not it.\nlocal x = 1\n").module)
  end)

  it("does not take rulers and plain comments for documentation", function()
    assert.are.same({}, doc.parse("-- plain\n-------------\nfunction f() end\n"))
  end)

  it("survives whatever it is given", function()
    math.randomseed(7)
    local pieces = { "---@param", " x", "?", "<", "{", "'", "\n", "---", "@return ", "|", ":",
      " ", "\r\n", "function f()", "[[", "\0", "@", "." }
    for _ = 1, 2000 do
      local text = {}
      for i = 1, math.random(30) do
        text[i] = pieces[math.random(#pieces)]
      end
      doc.parse(table.concat(text))
    end
  end)
end)
