local codec = require "mpreg.codec"
local json = require "mpreg.cli.json"

describe("cli.json", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function argument(word)
    local bytes, err = json.argument(word, "argument 1")
    assert.is_nil(err)
    return (codec.msgpack_to_json(bytes))
  end

  it("takes valid JSON for that value, and all else for a string", function()
    for word, value in pairs { ["1"] = "1", ["-2.5"] = "-2.5", ["true"] = "true", ["null"] = "null",
      ['"1"'] = '"1"', ["[1, 2]"] = "[1,2]", [' {"a":1} '] = '{"a":1}',
      ["week.json"] = '"week.json"',
      ["1.2.3"] = '"1.2.3"', [""] = '""', ["tru"] = '"tru"', ["NaN"] = '"NaN"', ["0x10"] = '"0x10"',
      ["@"] = '"@"', ["a b"] = '"a b"', ["{}"] = "{}", ["[]"] = "[]", ["-"] = nil } do
      assert.are.equal(value, argument(word), word)
    end
  end)

  it("refuses broken JSON, with its place", function()
    for word, pattern in pairs { ['{"a"'] = "column", ["[1,]"] = "column 4", ['"open'] = "column",
      ['{"a":1,"a":2}'] = "a", ["18446744073709551617"] = "column 1", ["[NaN]"] = "column" } do
      local bytes, err = json.argument(word, "argument 1")
      assert.is_nil(bytes, word)
      assert.are.same({ "INVALID_ARGUMENT", "BAD_JSON" }, { err.code, err.reason })
      assert.is_truthy(err.message:find("argument 1", 1, true), err.message)
      assert.is_truthy(err.message:find(pattern, 1, true), err.message)
    end
  end)

  it("loses nothing", function()
    for _, text in ipairs { '{"$int":"9007199254740993"}', '{"$bytes":"/w=="}',
      '{"$lit":{"$int":"1"}}', "[]", "{}", "1e+300", "0.1" } do
      assert.are.equal(text, argument(text))
    end
  end)

  it("reads files", function()
    local file = assert(io.open(path, "w"))
    file:write '{"x": [1, 2]}\n'
    file:close()
    assert.are.equal('{"x":[1,2]}', argument("@" .. path))
    local bytes, err = json.argument("@/no/such/file", "argument 2")
    assert.is_nil(bytes)
    assert.are.same({ "UNREADABLE", "cannot read /no/such/file: No such file or directory" },
      { err.reason, err.message })
  end)

  it("reads an empty file as empty JSON, which is an error, and a text file too", function()
    local bytes, err = json.argument("@" .. path, "argument 1")
    assert.is_nil(bytes)
    assert.are.equal("BAD_JSON", err.reason)
  end)

  it("says what has no JSON form", function()
    local text, err = json.encode(codec.encode { a = { 0 / 0 } })
    assert.is_nil(text)
    assert.are.equal("UNENCODABLE", err.reason)
    assert.is_truthy(err.message:find(".a[1]", 1, true), err.message)
  end)
end)
