local null = require("cjson").null

describe("modules/csv", function()
  local csv = dofile("modules/csv.lua")

  local function refuses(message, fun, ...)
    local ok, err = pcall(fun, ...)
    assert.is_false(ok)
    assert.are.same({ code = "INVALID_ARGUMENT", message = message }, err)
  end

  describe("decode", function()
    it("names fields by the header", function()
      assert.are.same({ { net = "ci", mag = "2.5" }, { net = "nc", mag = "1" } },
        csv.decode("net,mag\r\nci,2.5\r\nnc,1\r\n"))
      assert.are.same({}, csv.decode("net,mag\n"))
      assert.are.same({}, csv.decode(""))
    end)

    it("takes any line end, a missing last one, and a byte order mark", function()
      local rows = { { a = "1", b = "2" }, { a = "3", b = "4" } }
      assert.are.same(rows, csv.decode("\239\187\191a,b\n1,2\n3,4"))
      assert.are.same(rows, csv.decode("a,b\r1,2\r3,4\r"))
      assert.are.same(rows, csv.decode("a,b\n\n1,2\r\n\r\n3,4\n\n"))
    end)

    it("reads quotes, and what they hold", function()
      assert.are.same({ { a = 'say "hi"', b = "x,y", c = "two\r\nlines", d = "" } },
        csv.decode('a,b,c,d\n"say ""hi""","x,y","two\r\nlines",""\n'))
      assert.are.same({ { ["a,b"] = '"' } }, csv.decode('"a,b"\n""""'))
    end)

    it("keeps empty fields, at the end too", function()
      assert.are.same({ { a = "", b = "", c = "" }, { a = "1", b = "", c = "" } },
        csv.decode("a,b,c\n,,\n1,,"))
      assert.are.same({ { a = "" } }, csv.decode('a\n""\n'))
    end)

    it("keeps spaces unless told to trim", function()
      assert.are.same({ { a = " x ", [" b"] = "y" } }, csv.decode("a, b\n x ,y"))
      assert.are.same({ { a = "x", b = " y " } }, csv.decode('a, b\n x ," y "', { trim = true }))
    end)

    it("takes other separators, also magic ones", function()
      for _, separator in ipairs { ";", "\t", "|", "%", "^", "]", "-", "." } do
        assert.are.same({ { a = "1,x", b = "2" } },
          csv.decode(("a,b\n\"1!x\",2"):gsub(",", "%" .. separator):gsub("!", ","),
            { separator = separator }), separator)
      end
      for _, separator in ipairs { "", ",,", '"', "\n", 7 } do
        refuses("csv.decode: the separator must be one character, and no quote or line end",
          csv.decode, "a", { separator = separator })
      end
    end)

    it("does without a header", function()
      assert.are.same({ { column1 = "1", column2 = "2" } }, csv.decode("1,2", { header = false }))
      assert.are.same({ { x = "1", y = "2" } }, csv.decode("1,2", { header = { "x", "y" } }))
      assert.are.same({ { a = "1", column2 = "2" } }, csv.decode("a,\n1,2"))
      refuses("csv.decode: header[2] must be a string, not number",
        csv.decode, "1,2", { header = { "x", 2 } })
    end)

    it("guesses types", function()
      assert.are.same({ { i = 7, f = -2.5, e = 1e6, z = 0, t = true, n = null, c = "007",
        s = "7 km", q = "7", x = "0x10", inf = "inf", long = "12345678901234567890" } },
        csv.decode('i,f,e,z,t,n,c,s,q,x,inf,long\n7,-2.5,1e6,0,true,,007,7 km,"7",0x10,inf,'
          .. "12345678901234567890", { types = true }))
      for _, field in ipairs { "-", ".", "1e", "1e999", "--1", "+1", "nan", "1_000", "1,5" } do
        local rows = csv.decode("a;b\n" .. field .. ";", { types = true, separator = ";" })
        assert.are.equal(field, rows[1].a)
      end
      assert.are.equal(0.5, csv.decode("a\n0.5", { types = true })[1].a)
      assert.are.equal(5, csv.decode("a\n5.", { types = true })[1].a)
    end)

    it("takes types by column, and refuses what does not fit", function()
      local types = { a = "number", b = "integer", c = "boolean", d = "string" }
      assert.are.same({ { a = 1.5, b = 2, c = false, d = "7", e = "8" },
        { a = null, b = null, c = null, d = null, e = "" } },
        csv.decode("a,b,c,d,e\n1.5,2,FALSE,7,8\n,,,,\n", { types = types }))
      assert.are.same({ { d = "" } }, csv.decode('d\n""', { types = types }))
      refuses('csv.decode: line 3: a is "x", which is no number',
        csv.decode, "a\n1\nx", { types = types })
      refuses('csv.decode: line 2: b is "1.5", which is no integer',
        csv.decode, "b\n1.5", { types = types })
      refuses("csv.decode: the type of a must be string, number, integer or boolean, not date",
        csv.decode, "a", { types = { a = "date" } })
      refuses("csv.decode: types must be true or a map from column to type, not string",
        csv.decode, "a", { types = "all" })
    end)

    it("says where a text is broken", function()
      refuses("csv.decode: line 3 has 1 fields, not 2", csv.decode, "a,b\n1,2\n3")
      refuses("csv.decode: line 5 has 3 fields, not 2", csv.decode, 'a,b\n"1\n\n",2\n3,4,5')
      refuses("csv.decode: the quotes opened in line 2 do not close", csv.decode, 'a\n"x\ny')
      refuses("csv.decode: something stands behind the closing quote in line 2",
        csv.decode, 'a\n"x"y')
      refuses("csv.decode: a quote inside a field without quotes in line 2", csv.decode, 'a\nx"y"')
      refuses("csv.decode: the column a stands twice in the header", csv.decode, "a,b,a")
      refuses("csv.decode: the text must be a string, not null", csv.decode, null)
      refuses("csv.decode: the options must be a map, not string", csv.decode, "", ";")
    end)

    it("takes ragged records if told to", function()
      assert.are.same({ { a = "1" }, { a = "1", b = "2" } },
        csv.decode("a,b\n1\n1,2,3", { ragged = true }))
    end)
  end)

  describe("encode", function()
    it("writes a header and rows, columns sorted", function()
      assert.are.equal("a,b\r\n1,x\r\n,true\r\n",
        csv.encode { { b = "x", a = 1 }, { a = null, b = true } })
      assert.are.equal("", csv.encode {})
      assert.are.equal("a\r\n", csv.encode({}, { columns = { "a" } }))
    end)

    it("writes what it is told to", function()
      assert.are.equal("b;a\nx;1\n", csv.encode({ { b = "x", a = 1, c = 2 } },
        { columns = { "b", "a" }, separator = ";", newline = "\n" }))
      assert.are.equal("1\r\n", csv.encode({ { a = 1 } }, { header = false }))
    end)

    it("quotes what must be quoted", function()
      assert.are.equal('a,"b,c"\r\n"say ""hi""","two\r\nlines"\r\n"",x y\r\n',
        csv.encode({ { a = 'say "hi"', ["b,c"] = "two\r\nlines" }, { a = "", ["b,c"] = "x y" } }))
      assert.are.equal('a\r\n""\r\n', csv.encode { { a = null } })
      assert.are.equal('a,b,c\r\n"7",7,"true"\r\n', csv.encode { { a = "7", b = 7, c = "true" } })
    end)

    it("writes numbers in full", function()
      assert.are.equal("a\n0.1\n1517966773840\n9007199254740993\n", csv.encode(
        { { a = 0.1 }, { a = 1517966773840 }, { a = 9007199254740993LL } }, { newline = "\n" }))
    end)

    it("refuses what is no field", function()
      refuses("csv.encode: rows[2].a is a table, which is no field",
        csv.encode, { { a = 1 }, { a = {} } })
      refuses("csv.encode: rows[1].a is inf, which is no number", csv.encode, { { a = math.huge } })
      refuses("csv.encode: rows[1] must be a map, its keys strings", csv.encode, { { 1, 2 } })
      refuses("csv.encode: rows[1] must be a map, not number", csv.encode, { 1 })
      refuses("csv.encode: rows must be a list, not a map", csv.encode, { a = 1 })
      refuses("csv.encode: rows must be a list, not nil", csv.encode)
      refuses([[csv.encode: newline must be "\r\n" or "\n"]], csv.encode, {}, { newline = "" })
      refuses("csv.encode: the column a stands twice in columns",
        csv.encode, {}, { columns = { "a", "a" } })
    end)
  end)

  it("reads back what it wrote", function()
    local seed = 7
    math.randomseed(seed)
    local alphabet = { "a", "B", "7", ".", ",", ";", '"', "\n", "\r", "\r\n", " ", "%", "é", "" }
    for _ = 1, 300 do
      local rows = {}
      for i = 1, math.random(1, 6) do
        rows[i] = {}
        for _, column in ipairs { "one", "two", 'th"ree,' } do
          local parts = {}
          for p = 1, math.random(0, 5) do parts[p] = alphabet[math.random(#alphabet)] end
          rows[i][column] = table.concat(parts)
        end
      end
      for _, separator in ipairs { ",", ";", "%" } do
        local opts = { separator = separator, types = true }
        assert.are.same(rows, csv.decode(csv.encode(rows, opts), opts), "seed " .. seed)
      end
    end
  end)

  it("says of every function that it may run twice", function()
    assert.are.same({ encode = { idempotent = true }, decode = { idempotent = true } }, csv._mpreg)
  end)
end)
