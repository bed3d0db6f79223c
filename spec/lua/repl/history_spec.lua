local history = require "mpreg.repl.history"

describe("mpreg.repl.history", function()
  local function env(vars)
    return function(name) return vars[name] end
  end

  it("lies in the user's state folder", function()
    assert.are.equal("/s/mpreg/history", history.path(env { XDG_STATE_HOME = "/s", HOME = "/h" }))
    assert.are.equal("/h/.local/state/mpreg/history", history.path(env { HOME = "/h" }))
    assert.are.equal("/h/.local/state/mpreg/history",
      history.path(env { XDG_STATE_HOME = "relative", HOME = "/h" }))
    assert.is_nil(history.path(env {}))
    assert.is_nil(history.path(env { HOME = "" }))
  end)

  it("keeps an entry of many lines as one, whatever is in it", function()
    local entries = { "1", "for i = 1, 2 do\n  print(i)\nend", [[x = "\n\\n"]], "a\\", "\r\0é" }
    local text = history.encode_all(entries)
    assert.are.equal(#entries, select(2, text:gsub("\n", "")))
    local read, is_cut = history.decode(text)
    assert.are.same(entries, read)
    assert.is_false(is_cut)
  end)

  it("reads a file whose last line was cut off", function()
    assert.are.same({ "1", "2" }, (history.decode "1\n2"))
    assert.are.same({ "1", "x" .. "\\" }, (history.decode "1\nx\\"))
    assert.are.same({}, (history.decode ""))
  end)

  it("keeps the newest entries alone", function()
    local entries = {}
    for i = 1, history.ENTRIES_MAX + 3 do entries[i] = "x" .. i end
    local read, is_cut = history.decode(history.encode_all(entries))
    assert.is_true(is_cut)
    assert.are.equal(5000, #read)
    assert.are.same({ "x4", "x5003" }, { read[1], read[5000] })
  end)
end)
