local cjson = require "cjson"

describe("modules/json", function()
  local Array = { __name = "mpreg.array" }
  local null = cjson.null
  local real, json

  setup(function()
    real = package.loaded["mpreg"]
    package.loaded["mpreg"] = {
      null = null,
      array = function(t) return setmetatable(t, Array) end,
    }
    json = dofile("modules/json.lua")
  end)

  teardown(function() package.loaded["mpreg"] = real end)

  local function refuses(message, fun, ...)
    local ok, err = pcall(fun, ...)
    assert.is_false(ok)
    assert.are.same({ code = "INVALID_ARGUMENT", message = message }, err)
  end

  describe("decode", function()
    it("reads every kind of value", function()
      assert.are.same({ a = { 1, 2.5, -3, 1000 }, b = true, c = false, d = null, e = "x" },
        json.decode(' {"a" : [1, 2.5,-3,1e3 ],\n\t"b":true,"c":false,"d":null,"e":"x"} \r\n'))
      assert.are.equal(0, json.decode("0"))
      assert.are.equal(-0.5, json.decode("-0.5E0"))
      assert.are.equal("", json.decode('""'))
      assert.are.equal(null, json.decode("null"))
      assert.are.same({}, json.decode("{}"))
    end)

    it("keeps empty lists and long integers", function()
      assert.are.equal(Array, getmetatable(json.decode("[ ]")))
      assert.is_nil(getmetatable(json.decode("{ }")))
      assert.are.equal(9007199254740992, json.decode("9007199254740992"))
      assert.are.equal("9007199254740993LL", tostring(json.decode("9007199254740993")))
      assert.are.equal("-9223372036854775808LL", tostring(json.decode("-9223372036854775808")))
      assert.are.equal("9223372036854775807LL", tostring(json.decode("9223372036854775807")))
      assert.are.equal(9223372036854775808, json.decode("9223372036854775808"))
      assert.are.equal(1e20, json.decode("100000000000000000000"))
    end)

    it("reads escapes", function()
      assert.are.equal('"\\/\b\f\n\r\t', json.decode([["\"\\\/\b\f\n\r\t"]]))
      assert.are.equal("Aé€𝄞\0", json.decode([["\u0041\u00e9\u20AC\uD834\udd1e\u0000"]]))
      assert.are.equal("aé\127b", json.decode('"aé\127b"'))
    end)

    it("passes over a byte order mark", function()
      assert.are.equal(1, json.decode("\239\187\1911"))
    end)

    it("says what is wrong, and where", function()
      for text, fault in pairs {
        [""] = "a value is wanted, not the end, at line 1, column 1",
        ["{"] = "a key in quotes is wanted, not the end, at line 1, column 2",
        ["[1,\n 2,]"] = "a value is wanted, not ']', at line 2, column 4",
        ["[1 2]"] = "',' or ']' is wanted, not '2', at line 1, column 4",
        ['{"a" 1}'] = "':' is wanted, not '1', at line 1, column 6",
        ['{"a":1 "b":2}'] = "',' or '}' is wanted, not '\"', at line 1, column 8",
        ["{a:1}"] = "a key in quotes is wanted, not 'a', at line 1, column 2",
        ['{"a":1,"a":2}'] = 'the key "a" for the second time at line 1, column 8',
        ["1 2"] = "the end is wanted, not '2', at line 1, column 3",
        ["nul"] = "a value is wanted, not 'n', at line 1, column 1",
        ["nullx"] = "a value is wanted, not 'n', at line 1, column 1",
        ["NaN"] = "a value is wanted, not 'N', at line 1, column 1",
        ["01"] = "a number that is none at line 1, column 1",
        ["1."] = "a number that is none at line 1, column 1",
        ["0x10"] = "a number that is none at line 1, column 1",
        ["1e"] = "a number that is none at line 1, column 1",
        ["-"] = "a value is wanted, not '-', at line 1, column 1",
        ["1e999"] = "a number too large at line 1, column 1",
        ['"é\\x"'] = "an unknown escape at line 1, column 3",
        ['"\\u12g4"'] = "an unknown escape at line 1, column 2",
        ['"\\ud800x"'] = "half of a surrogate pair at line 1, column 2",
        ['"\\udc00"'] = "half of a surrogate pair at line 1, column 2",
        ['["a]'] = "a string that does not end at line 1, column 2",
        ['"a\nb"'] = "a control character in a string at line 1, column 3",
        ["[\0]"] = "a value is wanted, not a stray character, at line 1, column 2",
      } do
        refuses("json.decode: " .. fault, json.decode, text)
      end
      refuses("json.decode: the text must be a string, not null", json.decode, null)
    end)

    it("bounds the nesting", function()
      assert.is_table(json.decode(("["):rep(128) .. ("]"):rep(128)))
      refuses("json.decode: nesting deeper than 128 at line 1, column 129",
        json.decode, ("["):rep(100000))
    end)

    it("fails cleanly on every beginning of a text", function()
      local text = '{"a":[1,-2.5e-3,"\\u00e9\\n"],"b":{"c":null,"d":[true,false,{}]}}'
      for length = 0, #text - 1 do
        local ok, err = pcall(json.decode, text:sub(1, length))
        assert.is_false(ok)
        assert.are.equal("INVALID_ARGUMENT", err.code)
      end
    end)

    it("agrees with another reader on a week of earthquakes", function()
      local file = assert(io.open("examples/quakes/data/week.json", "rb"))
      local text = file:read("*a")
      file:close()
      assert.are.same(cjson.decode(text), json.decode(text))
    end)
  end)

  describe("encode", function()
    it("writes every kind of value, keys sorted", function()
      assert.are.equal('{"a":[1,2.5,-3],"b":true,"c":null,"d":{},"e":[],"f":"x"}', json.encode {
        f = "x", e = setmetatable({}, Array), d = {}, c = null, b = true, a = { 1, 2.5, -3 } })
      assert.are.equal("null", json.encode(nil))
      assert.are.equal('"x"', json.encode("x"))
    end)

    it("writes numbers that read back as the same", function()
      for _, case in ipairs { { 0.1, "0.1" }, { 1 / 3, "0.3333333333333333" }, { 1e300, "1e+300" },
        { 1517966773840, "1517966773840" }, { 2 ^ 53, "9007199254740992" }, { -0.5, "-0.5" },
        { 9007199254740993LL, "9007199254740993" }, { 18446744073709551615ULL,
          "18446744073709551615" }, { 5e-324, "4.94065645841247e-324" } } do
        assert.are.equal(case[2], json.encode(case[1]))
      end
      local seed = 42
      math.randomseed(seed)
      for _ = 1, 2000 do
        local value = (math.random() - 0.5) * 10 ^ math.random(-300, 300)
        assert.are.equal(value, json.decode(json.encode(value)), "seed " .. seed)
      end
    end)

    it("escapes what must be escaped", function()
      assert.are.equal([["\"\\\b\f\n\r\t\u0000\u001f/é]] .. '\127"',
        json.encode('"\\\b\f\n\r\t\0\31/é\127'))
      assert.are.equal([[{"a\"b":1}]], json.encode { ['a"b'] = 1 })
    end)

    it("writes over several lines", function()
      assert.are.equal('{\n  "a": [\n    1,\n    2\n  ],\n  "b": {}\n}',
        json.encode({ a = { 1, 2 }, b = {} }, { indent = 2 }))
      refuses("json.encode: indent must be a whole number from 1 to 16",
        json.encode, 1, { indent = 0 })
      refuses("json.encode: the options must be a map, not number", json.encode, 1, 2)
    end)

    it("says what cannot be written, and where it is", function()
      local cycle = {}
      cycle.again = cycle
      refuses("json.encode: nesting deeper than 128, or a cycle", json.encode, cycle)
      refuses("json.encode: the value.a[2] is a function, which JSON lacks",
        json.encode, { a = { 1, print } })
      refuses('json.encode: the value["a b"] is inf, which JSON lacks',
        json.encode, { ["a b"] = math.huge })
      refuses("json.encode: the value.x is a table of a kind of its own, which JSON lacks",
        json.encode, { x = setmetatable({}, {}) })
      refuses("json.encode: the value.x is a string that is not UTF-8",
        json.encode, { x = "\255" })
      refuses("json.encode: the value is neither a list without holes nor a map",
        json.encode, { 1, 2, a = 3 })
      refuses("json.encode: the value is neither a list without holes nor a map",
        json.encode, { [1] = 1, [3] = 3 })
      refuses("json.encode: the value has a key that is a boolean", json.encode, { [true] = 1 })
      for _, text in ipairs { "\192\128", "\237\160\128", "\244\144\128\128", "\195", "a\128" } do
        assert.is_false((pcall(json.encode, text)))
      end
    end)

    it("undoes decode", function()
      for _, text in ipairs { "[]", "{}", "[[],{}]", '{"a":[{"b":null}]}', "[1,2.5,-7]",
        '"€𝄞"', "9007199254740993", "true" } do
        assert.are.equal(text, json.encode(json.decode(text)))
      end
    end)
  end)

  it("says of every function that it may run twice", function()
    assert.are.same({ encode = { idempotent = true }, decode = { idempotent = true } }, json._mpreg)
  end)
end)
