local codec = require "mpreg.codec"
local source = require "mpreg.cli.source"

describe("cli.source", function()
  local folder

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
  end)
  after_each(function() os.execute("rm -r " .. folder) end)

  local function write(name, text)
    local path = folder .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  local function payload(path, input)
    local bytes, err = source.payload(path, input and codec.json_to_msgpack(input))
    assert.is_nil(err)
    return (codec.msgpack_to_json(bytes, { sort_keys = true }))
  end

  local function refused(reason, pattern, path, input)
    local bytes, err = source.payload(path, input)
    assert.is_nil(bytes)
    assert.are.equal("INVALID_ARGUMENT", err.code)
    assert.are.equal(reason, err.reason)
    assert.is_truthy(err.message:find(pattern, 1, true), err.message)
  end

  local PIPELINE = [[
    local mpreg = require "mpreg"
    return mpreg.pipeline("p", function(p, input)
      return { x = p "a" { "m.f", input.n, {}, mpreg.null, mpreg.array {} } }
    end)
  ]]
  local GRAPH = '{"name":"p","output":{"x":{"$ref":"a"}},'
    .. '"steps":[{"args":[{"$ref":"input.n"},{},null,[]],"call":"m.f","name":"a"}]}'

  it("reads a .lua file and a folder with a pipeline.lua", function()
    assert.are.equal(GRAPH, payload(write("p.lua", PIPELINE)))
    write("pipeline.lua", PIPELINE)
    assert.are.equal(GRAPH, payload(folder))
    assert.are.equal(GRAPH, payload(folder .. "/"))
  end)

  it("reads a .json graph as it stands", function()
    assert.are.equal(GRAPH, payload(write("p.json", GRAPH)))
    local text = '{"steps":[{"args":[{"$lit":{"$ref":"x"}},{"$int":"9007199254740993"}],'
      .. '"call":"m.f"}]}'
    assert.are.equal(codec.msgpack_to_json(codec.json_to_msgpack(text, { graph = true })),
      (codec.msgpack_to_json(assert(source.payload(write("q.json", text))))))
  end)

  it("puts the input in", function()
    assert.is_truthy(payload(write("p.lua", PIPELINE), '{"n":1}'):find('"input":{"n":1},', 1, true))
    assert.is_truthy(payload(write("p.json", GRAPH), "null"):find('"input":null,', 1, true))
    assert.are.equal('{"input":[1],"pipeline":"known.name"}', payload("known.name", "[1]"))
    assert.are.equal('{"pipeline":"quakes"}', payload "quakes")
    refused("BAD_GRAPH", "a graph must be an object", write("l.json", "[1]"), "\1")
  end)

  it("says what is wrong with a file, and where", function()
    refused("UNREADABLE", "No such file", folder .. "/none.lua")
    refused("UNREADABLE", "has no pipeline.lua", folder)
    refused("UNREADABLE", "is neither a .lua file nor a .json graph", write("p.txt", ""))
    refused("UNREADABLE", "there is no no/such", "no/such")
    refused("BAD_PIPELINE", "p.lua:2: unexpected symbol", write("p.lua", "return {\n  = 1 }"))
    refused("BAD_PIPELINE", "p.lua:1: boom", write("p.lua", "error 'boom'"))
    refused("BAD_PIPELINE", "returns a table, not a pipeline", write("p.lua", "return {}"))
    refused("BAD_PIPELINE", "returns a nil, not a pipeline", write("p.lua", ""))
    refused("BAD_PIPELINE", "p.lua:2: step 'a': unknown option 'ech', did you mean 'each'?",
      write("p.lua", "return require 'mpreg'.pipeline('x', function(p)\n"
        .. "p 'a' { 'm.f', ech = 1 } end)"))
    refused("BAD_JSON", "p.json at line 2, column 3", write("p.json", "{\n  x}"))
    refused("UNENCODABLE", ".input", write("q.lua", "return require 'mpreg'.pipeline('x', "
      .. "function() end, { input = { [1] = 1, x = 2 } })"))
  end)

  it("keeps a pipeline's file to describing a graph", function()
    refused("BAD_PIPELINE", "a pipeline can require mpreg alone, not 'os'",
      write("p.lua", "require 'os'"))
    for _, code in ipairs { "io.open('x')", "os.execute('x')", "os.exit(3)", "dofile('x')",
      "debug.getinfo(1)", "package.loaded.os.exit(3)", "ffi.C.abort()", "loadstring('x')()" } do
      refused("BAD_PIPELINE", "attempt to", write("p.lua", code))
    end
    refused("BAD_PIPELINE", "returns a nil", write("p.lua", "string.format = nil leaked = 1"))
    assert.is_function(string.format)
    assert.is_nil(rawget(_G, "leaked"))
    refused("BAD_PIPELINE", "wrong mode", write("p.lua", "\27LJ\2"))
  end)

  it("reads --input from JSON or a file", function()
    assert.are.equal('{"a":[1]}', codec.msgpack_to_json(source.input '{"a":[1]}'))
    assert.are.equal("2", codec.msgpack_to_json(source.input("@" .. write("i.json", " 2\n"))))
    assert.is_nil(source.input(nil))
    local bytes, err = source.input "text"
    assert.is_nil(bytes)
    assert.are.equal("BAD_JSON", err.reason)
  end)
end)
