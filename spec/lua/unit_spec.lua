local codec = require "mpreg.codec"
local native = require "mpreg.native"
local unit = require "mpreg.unit"

describe("mpreg.unit", function()
  local folder

  local function sh(command) assert.equal(0, os.execute("cd " .. folder .. " && " .. command)) end

  local function write(path, text)
    local parent = path:match("^(.*)/")
    if parent then sh("mkdir -p " .. parent) end
    local file = assert(io.open(folder .. "/" .. path, "wb"))
    file:write(text or "return {}")
    file:close()
  end

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
  end)
  after_each(function() os.execute("rm -r " .. folder) end)

  local function names(...)
    local paths = {}
    for i, path in ipairs { ... } do
      paths[i] = path:sub(1, 1) == "/" and path or folder .. "/" .. path
    end
    local modules, err = unit.collect(paths)
    if not modules then return nil, err end
    local list = {}
    for i, module in ipairs(modules) do list[i] = module.name end
    return list
  end

  local function refused(reason, pattern, ...)
    local list, err = names(...)
    assert.is_nil(list)
    assert.same({ "INVALID_ARGUMENT", reason }, { err.code, err.reason })
    assert.truthy(err.message:find(pattern, 1, true), err.message)
  end

  it("names modules by their path from the folder, in the order of their bytes", function()
    write "b.lua"
    write "geo/grid.lua"
    write "geo/init.lua"
    write "geo/far/away.lua"
    write "B.lua"
    assert.same({ "B", "b", "geo", "geo.far.away", "geo.grid" }, names "")
    assert.same({ "far.away", "grid", "init" }, names "geo")
    assert.same({ "far.away", "grid", "init" }, names "geo///")
    assert.same({ "grid" }, names "geo/grid.lua")
    assert.same({ "b", "far.away", "grid", "init" }, names("geo", "b.lua"))
  end)

  it("passes over specs, what begins with a dot, and what is no Lua", function()
    write "a.lua"
    write "a_spec.lua"
    write "spec/x.lua"
    write "geo/spec/y.lua"
    write ".hidden.lua"
    write ".git/z.lua"
    write "README.md"
    write "a.lua~"
    write "4913"
    assert.same({ "a" }, names "")
    -- Whoever names one means it.
    assert.same({ "a_spec" }, names "a_spec.lua")
    assert.same({ "x" }, names "spec")
  end)

  it("follows links, and takes one file once", function()
    write "lib/a.lua"
    sh "ln -s lib/a.lua b.lua && ln -s lib other"
    assert.same({ "b", "lib.a", "other.a" }, names "")
    assert.same({ "a" }, names("lib", "lib/a.lua"))
    assert.same({ "a" }, names("lib", "other"))
  end)

  it("names both files of one module", function()
    write "x/geo.lua"
    write "y/geo.lua"
    refused("DUPLICATE_MODULE", ("%s/x/geo.lua and %s/y/geo.lua are both the module geo"):format(
      folder, folder), "x", "y")
    write "z/geo.lua"
    write "z/geo/init.lua"
    refused("DUPLICATE_MODULE", "z/geo.lua are both the module geo", "z")
  end)

  it("refuses names that are no module's", function()
    write "a b.lua"
    refused("BAD_NAME", "/a b.lua: 'a b' is no module name", "")
    write "sub/a.b-c.lua"
    assert.same({ "a.b-c" }, names "sub")
    write "bad/x..y.lua"
    refused("BAD_NAME", "'x..y' is no module name", "bad")
    write "long/abcdefghij.lua"
    sh("mv long/abcdefghij.lua long/" .. ("x"):rep(65) .. ".lua")
    refused("BAD_NAME", "is no module name", "long")
    write "notes.txt"
    refused("BAD_NAME", "notes.txt: a module file ends in .lua", "notes.txt")
  end)

  it("says what cannot be read, and where nothing is", function()
    refused("UNREADABLE", "cannot read " .. folder .. "/none: No such file", "none")
    refused("UNREADABLE", "none.lua: No such file", "none.lua")
    write "spec/a.lua"
    refused("EMPTY_UNIT", "there is no module in " .. folder, "")
    sh "mkdir dir.lua && ln -s nowhere gone.lua"
    refused("UNREADABLE", "gone.lua: No such file", "")
  end)

  it("keeps to the limits", function()
    write("a.lua", ("-"):rep(unit.MODULE_BYTES_MAX))
    assert.same({ "a" }, names "")
    write("b.lua", ("-"):rep(unit.MODULE_BYTES_MAX + 1))
    refused("TOO_LARGE", "b.lua: more than 16 MiB", "")
    write("b.lua", ("-"):rep(unit.MODULE_BYTES_MAX))
    write("c.lua", "-")
    refused("TOO_LARGE", "together more than 32 MiB", "")
    sh "rm ?.lua && for i in $(seq 512); do : > m$i.lua; done"
    assert.equal(512, #names "")
    write "n.lua"
    refused("TOO_LARGE", "more than 512 modules", "")
  end)

  it("tells which folders it read, to be watched", function()
    write "geo/grid.lua"
    write "empty/x.txt"
    write "spec/x.lua"
    local _, _, folders = unit.collect { folder }
    assert.same({ folder, folder .. "/empty", folder .. "/geo" }, folders)
    write "a_b.lua"
    write "-x.lua"
    local modules, err, some = unit.collect { folder }
    assert.same({ nil, "BAD_NAME", folder }, { modules, err.reason, some[1] })
  end)

  it("finds what is no Lua, in the words of a node", function()
    local function check(name, source)
      local err = unit.check { { name = "a", source = "return {}" },
        { name = name, source = source } }
      return err and err.code .. "/" .. err.reason .. ": " .. err.message
    end
    assert.is_nil(check("b", "return {}"))
    assert.is_nil(check("b", "\239\187\191#!/usr/bin/lua\nreturn {}"))
    assert.equal("INVALID_ARGUMENT/SYNTAX_ERROR: geo/grid.lua:2: unexpected symbol near '='",
      check("geo.grid", "#!\nx = = 1"))
    assert.equal("INVALID_ARGUMENT/SYNTAX_ERROR: b.lua: this is bytecode; a module is Lua source",
      check("b", string.dump(function() end)))
  end)

  it("encodes sources as text, or as bytes if they are none", function()
    write("a.lua", "return 1")
    write("b.lua", "return '\255'")
    local modules = assert(unit.collect { folder })
    local bytes = unit.encode(modules)
    assert.equal("\146\146\161a\168return 1\146\161b\196\10return '\255'", bytes)
    assert.same({ { "a", "return 1" }, { "b", "return '\255'" } }, codec.decode(bytes))
  end)

  it("has the rules of src/host/modules.c", function()
    -- The folder of functions that every node has: as the node names them.
    local modules = assert(unit.collect { native.cwd() .. "/modules" })
    assert.is_true(#modules >= 5)
    assert.is_nil(unit.check(modules))
  end)
end)
