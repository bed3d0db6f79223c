local text = require "mpreg.render.text"

describe("render.text", function()
  it("measures columns", function()
    for s, width in pairs { [""] = 0, abc = 3, ["für"] = 3, ["日本"] = 4, ["e\204\129"] = 1,
      ["█▍"] = 2, ["🎉"] = 2 } do
      assert.are.equal(width, text.width(s), s)
    end
  end)

  it("cuts and pads", function()
    assert.are.equal("abc", text.cut("abc", 3))
    assert.are.equal("ab…", text.cut("abcd", 3))
    assert.are.equal("日…", text.cut("日本語", 4))
    assert.are.equal("", text.cut("abc", 0))
    assert.are.equal("ab  ", text.pad("ab", 4))
    assert.are.equal("  für", text.pad("für", 5, "right"))
  end)

  it("knows UTF-8", function()
    for _, s in ipairs { "", "a", "ü", "€", "😀", "\244\143\191\191" } do
      assert.is_true(text.is_utf8(s))
    end
    for _, s in ipairs { "\128", "\192\128", "\195", "\237\160\128", "\244\144\128\128", "\255",
      "a\226\130" } do
      assert.is_false(text.is_utf8(s))
    end
  end)

  it("breaks lines at spaces", function()
    assert.are.same({ "a bc d" }, text.wrap("a bc d"))
    assert.are.same({ "a bc", "d" }, text.wrap("a bc d", 4))
    assert.are.same({ "→ b", "wider", "c" }, text.wrap("→ b wider c", 4))
  end)

  it("makes foreign text safe to print", function()
    assert.are.equal("a\\x1b[31mb", text.clean "a\27[31mb")
    assert.are.equal("a\\nb\\tc", text.clean "a\nb\tc")
    assert.are.equal("a\nb\tc\\x0d", text.clean("a\nb\tc\r", true))
    assert.are.equal("\\xff\\xfe", text.clean "\255\254")
    assert.are.equal("\\x9bm", text.clean "\194\155m")
    assert.are.equal("für 日本", text.clean "für 日本")
  end)

  it("writes durations, sizes and names for people", function()
    assert.are.equal("0.4 ms", text.duration(0.44))
    assert.are.equal("9999.9 ms", text.duration(9999.9))
    assert.are.equal("12.3 s", text.duration(12345))
    assert.are.equal("4 m 05 s", text.duration(245000))
    assert.are.equal("2 h 01 m", text.duration(7265000))
    assert.are.equal("812 B", text.bytes(812))
    assert.are.equal("64.0 KiB", text.bytes(65536))
    assert.are.equal("1 step", text.count(1, "step"))
    assert.are.equal("a, b", text.names({ "a", "b" }, 2))
    assert.are.equal("a, … (+2)", text.names({ "a", "b", "c" }, 1))
  end)

  it("names a few and counts the others", function()
    assert.are.equal("", text.few({}, 2))
    assert.are.equal("a, b", text.few({ "a", "b" }, 2))
    assert.are.equal("a, b, +3", text.few({ "a", "b", "c", "d", "e" }, 2))
  end)
end)
