local complete = require "mpreg.repl.complete"

describe("mpreg.repl.complete", function()
  it("inserts a single name whole, and nothing behind it", function()
    assert.are.same({ 7, "mean" }, { complete.plan("stats.me", 7, { "mean" }, 80) })
    assert.are.same({ 1, "print" }, { complete.plan("print", 1, { "print", "print" }, 80) })
  end)

  it("inserts what several names have in common, and lists them", function()
    local from, insert, list = complete.plan("x.a", 3, { "abd", "abc", "abc" }, 80)
    assert.are.same({ 3, "ab", "abc  abd\n" }, { from, insert, list })
  end)

  it("does not take away what is typed", function()
    local _, insert = complete.plan("x.Ab", 3, { "abc", "abd" }, 80)
    assert.are.equal("Ab", insert)
  end)

  it("does nothing where there is nothing to do", function()
    assert.is_nil(complete.plan("x", 1, {}, 80))
    assert.is_nil(complete.plan("x", 0, { "xy" }, 80))
    assert.is_nil(complete.plan("x", 3, { "xy" }, 80))
    assert.is_nil(complete.plan("x", 1, { 5, "x\r", "x\27[2J" }, 80))
  end)

  it("cuts no character in two", function()
    local _, insert = complete.plan("", 1, { "é1", "è1" }, 80)
    assert.are.equal("", insert)
  end)

  it("lists in columns that are read downwards", function()
    assert.are.equal("a  d\nb  e\nc\n", complete.columns({ "a", "b", "c", "d", "e" }, 6))
    assert.are.equal("ä1  c\nb\n", complete.columns({ "ä1", "b", "c" }, 7))
    assert.are.equal("long_one\nlong_two\n", complete.columns({ "long_one", "long_two" }, 4))
    local many = {}
    for i = 1, 203 do many[i] = ("n%03d"):format(i) end
    assert.truthy(complete.columns(many, 80):find("\n… (+3)\n", 1, true))
  end)

  it("finds paths of folders and module files", function()
    local asked
    local function paths(start)
      return complete.paths(start, function(path)
        asked = path
        return { { name = ".git" }, { name = "a b.lua" }, { name = "geo" }, { name = "geo.lua" },
          { name = "notes.txt" } }
      end, function(path) return path:find("geo$") ~= nil or path:find("%.git$") ~= nil end)
    end
    assert.are.same({ "geo/", "geo.lua" }, paths "")
    assert.are.equal(".", asked)
    assert.are.same({ "x/geo/", "x/geo.lua" }, paths "x/g")
    assert.are.equal("x/", asked)
    assert.are.same({ "/geo.lua" }, paths "/geo.")
    assert.are.same({ ".git/" }, paths ".")
    assert.are.same({}, complete.paths("x/", function() return nil end, error))
  end)

  it("finds the words that begin like a text", function()
    assert.are.same({ ":nodes" }, complete.beginning({ ":help", ":nodes" }, ":n"))
    assert.are.same({ "a", "b" }, complete.beginning({ "a", "b" }, ""))
  end)
end)
