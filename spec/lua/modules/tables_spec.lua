local null = require("cjson").null

describe("modules/tables", function()
  local tables = dofile("modules/tables.lua")

  local rows = {
    { net = "ci", mag = 2.5, place = "Aguanga", at = { depth = 4 } },
    { net = "nc", mag = 1, place = "The Geysers", at = { depth = 1.3 } },
    { net = "ci", mag = null, place = "Boron" },
    { net = "us", mag = 6.4, place = "Hualian", tags = { "mww", "felt" } },
    { mag = 1, place = "nowhere" },
  }

  local function places(list)
    local names = {}
    for i, row in ipairs(list) do names[i] = row.place:match("^%S+") end
    return table.concat(names, " ")
  end

  local function refuses(message, fun, ...)
    local ok, err = pcall(fun, ...)
    assert.is_false(ok)
    assert.are.same({ code = "INVALID_ARGUMENT", message = message }, err)
  end

  describe("filter", function()
    local function kept(...) return places(tables.filter(rows, ...)) end

    it("compares", function()
      assert.are.equal("Aguanga Boron", kept("net", "==", "ci"))
      assert.are.equal("Aguanga Boron", kept("net", "=", "ci"))
      assert.are.equal("The Hualian nowhere", kept("net", "~=", "ci"))
      assert.are.equal("The Hualian nowhere", kept("net", "!=", "ci"))
      assert.are.equal("The nowhere", kept("mag", "<", 2.5))
      assert.are.equal("Aguanga The nowhere", kept("mag", "<=", 2.5))
      assert.are.equal("Hualian", kept("mag", ">", 2.5))
      assert.are.equal("Aguanga Hualian", kept("mag", ">=", 2.5))
      assert.are.equal("nowhere", kept("place", ">=", "a"))
      assert.are.equal("", kept("net", "<", 7))
    end)

    it("takes null and missing for the same", function()
      assert.are.equal("Boron", kept("mag", "==", null))
      assert.are.equal("nowhere", kept("net", "==", nil))
      assert.are.equal("Aguanga The Hualian nowhere", kept("mag", "~=", null))
    end)

    it("looks into lists and texts, without patterns", function()
      assert.are.equal("The Hualian", kept("net", "in", { "us", "nc" }))
      assert.are.equal("Aguanga Boron nowhere", kept("net", "not in", { "us", "nc" }))
      assert.are.equal("", kept("net", "in", {}))
      assert.are.equal("Hualian", kept("tags", "contains", "felt"))
      assert.are.equal("Aguanga Hualian", kept("place", "contains", "ua"))
      assert.are.equal("", kept("place", "contains", "."))
      assert.are.equal("The", kept("place", "starts with", "The"))
      assert.are.equal("Boron", kept("place", "ends with", "ron"))
      assert.are.equal("", kept("place", "ends with", "much longer than any"))
      assert.are.equal(5, #tables.filter(rows, "place", "ends with", ""))
    end)

    it("finds nested fields, and prefers a key with a dot in it", function()
      assert.are.equal("Aguanga", kept("at.depth", ">", 2))
      assert.are.equal(1, #tables.filter({ { ["at.depth"] = 5, at = { depth = 1 } } },
        "at.depth", ">", 2))
    end)

    it("refuses what makes no sense", function()
      refuses("tables.filter: there is no operator like", tables.filter, rows, "mag", "like", 3)
      refuses("tables.filter: in needs a list, not string", tables.filter, rows, "mag", "in", "x")
      refuses("tables.filter: field must be a field's name, not number",
        tables.filter, rows, 1, "==")
      refuses("tables.filter: rows must be a list, not null", tables.filter, null, "a", "==", 1)
      refuses("tables.filter: rows must be a list, not a map",
        tables.filter, { a = 1 }, "a", "==", 1)
      refuses("tables.filter: rows[2] must be a map, not null",
        tables.filter, { {}, null }, "a", "==")
    end)

    it("does not confuse 64-bit integers with what is near them", function()
      local big = { { v = 9007199254740993LL }, { v = 2LL }, { v = "2" }, { v = 2.5 } }
      assert.are.equal(1, #tables.filter(big, "v", "==", 9007199254740993LL))
      assert.are.equal(1, #tables.filter(big, "v", "==", 2))
      assert.are.equal(1, #tables.filter(big, "v", "<", 2.5))
      assert.are.equal(1, #tables.filter(big, "v", "in", { 2, "x" }))
      assert.are.equal(2, #tables.filter(big, "v", ">=", 2.5))
    end)
  end)

  it("selects, leaves out and renames fields", function()
    assert.are.same({ { net = "ci", ["at.depth"] = 4 }, { net = "nc", ["at.depth"] = 1.3 },
      { net = "ci" }, { net = "us" }, {} }, tables.select(rows, { "net", "at.depth" }))
    assert.are.same({ { a = 1 }, {} },
      tables.without({ { a = 1, b = 2 }, { b = 3 } }, { "b", "c" }))
    assert.are.same({ { x = 1, y = 2 } }, tables.rename({ { a = 1, y = 2 } }, { a = "x" }))
    assert.are.same({ { a = 2, b = 1 } }, tables.rename({ { a = 1, b = 2 } }, { a = "b", b = "a" }))
    refuses("tables.select: fields must be a list, not string", tables.select, rows, "net")
  end)

  describe("sort_by", function()
    it("sorts by a field, keeps the order of equal rows, and puts null last", function()
      assert.are.equal("The nowhere Aguanga Hualian Boron", places(tables.sort_by(rows, "mag")))
      assert.are.equal("Hualian Aguanga The nowhere Boron",
        places(tables.sort_by(rows, "mag", "desc")))
    end)

    it("sorts by several", function()
      assert.are.equal("Aguanga Boron The Hualian nowhere",
        places(tables.sort_by(rows, { "net", "mag" })))
      assert.are.equal("Hualian The Aguanga Boron nowhere",
        places(tables.sort_by(rows, { "net", "mag" }, { "desc", "asc" })))
    end)

    it("puts values of any kind in an order", function()
      local mixed = {}
      for i, value in ipairs { true, "b", 3, null, false, "a", {}, -1, 0 / 0, 2LL } do
        mixed[i] = { v = value }
      end
      local kinds = {}
      for i, row in ipairs(tables.sort_by(mixed, "v")) do kinds[i] = tostring(row.v):sub(1, 3) end
      assert.are.equal("-1 2LL 3 nan a b fal tru tab use",
        (table.concat(kinds, " "):gsub("%-nan", "nan"):gsub("%-na", "nan")))
    end)

    it("is stable and right for many rows", function()
      local many = {}
      for i = 1, 2000 do many[i] = { k = i * 7919 % 13, place = i } end
      local sorted = tables.sort_by(many, "k")
      for i = 2, #sorted do
        local a, b = sorted[i - 1], sorted[i]
        assert.is_true(a.k < b.k or a.k == b.k and a.place < b.place)
      end
    end)

    it("leaves its argument as it is, and refuses another order", function()
      assert.are.equal("Aguanga The Boron Hualian nowhere", places(rows))
      refuses([[tables.sort_by: the order must be "asc" or "desc", not down]],
        tables.sort_by, rows, "mag", "down")
    end)
  end)

  it("groups and counts by a field", function()
    local groups = tables.group_by(rows, "net")
    assert.are.equal("Aguanga Boron", places(groups.ci))
    assert.are.equal("nowhere", places(groups.null))
    assert.are.same({ ci = 2, nc = 1, us = 1, null = 1 }, tables.count_by(rows, "net"))
    assert.are.same({ ["1"] = 2, ["2.5"] = 1, ["6.4000000000000004"] = 1, null = 1 },
      tables.count_by(rows, "mag"))
    assert.are.same({ ["true"] = 1, ["9007199254740993"] = 1 },
      tables.count_by({ { v = true }, { v = 9007199254740993LL } }, "v"))
    local list = tables.groups(rows, "net")
    assert.are.same({ "ci", 2, "nc", 1 },
      { list[1].key, list[1].count, list[2].key, list[2].count })
    assert.are.same({}, tables.group_by({}, "net"))
    refuses("tables.group_by: a list or map cannot be a key", tables.group_by, rows, "at")
  end)

  it("sums by a field", function()
    assert.are.same({ ci = 2.5, nc = 1, us = 6.4, null = 1 }, tables.sum_by(rows, "net", "mag"))
    refuses("tables.sum_by: place must be a number in every row, not string",
      tables.sum_by, rows, "net", "place")
  end)

  it("aggregates groups into rows", function()
    local list = tables.aggregate(rows, "net", { n = { "count" }, with = { "count", "mag" },
      top = { "max", "mag" }, low = { "min", "mag" }, mean = { "mean", "at.depth" },
      sum = { "sum", "mag" } })
    assert.are.same({ net = "ci", n = 2, with = 1, top = 2.5, low = 2.5, mean = 4, sum = 2.5 },
      list[1])
    assert.are.same({ net = "us", n = 1, with = 1, top = 6.4, low = 6.4, mean = null, sum = 6.4 },
      list[3])
    assert.are.equal(null, list[4].net)
    refuses("tables.aggregate: columns.x must begin with count, sum, mean, min or max",
      tables.aggregate, rows, "net", { x = { "mode", "mag" } })
    refuses("tables.aggregate: columns.x[2] must be a field's name, not nil",
      tables.aggregate, rows, "net", { x = { "sum" } })
  end)

  it("indexes rows by a field that tells them apart", function()
    assert.are.same({ a = { id = "a" }, ["2"] = { id = 2 } },
      tables.index_by({ { id = "a" }, { id = 2 } }, "id"))
    refuses("tables.index_by: 2 rows have the net ci", tables.index_by, rows, "net")
  end)

  describe("join", function()
    local networks = {
      { code = "ci", name = "SCSN", place = "Pasadena" }, { code = "us", name = "NEIC" },
      { code = "us", name = "again" }, { code = null, name = "none" },
    }

    it("joins rows with all their partners", function()
      local joined = tables.join(rows, networks, "net", { right = "code" })
      assert.are.equal(4, #joined)
      assert.are.same({ net = "ci", mag = 2.5, place = "Aguanga", at = { depth = 4 }, name = "SCSN",
        place_right = "Pasadena" }, joined[1])
      assert.are.same({ "NEIC", "again" }, { joined[3].name, joined[4].name })
    end)

    it("keeps rows without a partner if told to", function()
      local joined = tables.join(rows, networks, "net", { right = "code", kind = "left" })
      assert.are.equal(6, #joined)
      assert.are.equal(rows[5], joined[6])
      assert.are.same({}, tables.join(rows, {}, "net"))
      assert.are.equal(5, #tables.join(rows, {}, "net", { kind = "left" }))
    end)

    it("refuses other kinds and suffixes", function()
      refuses([[tables.join: the kind must be "inner" or "left", not outer]],
        tables.join, rows, networks, "net", { kind = "outer" })
      refuses("tables.join: the suffix must be a string that is not empty",
        tables.join, rows, networks, "net", { suffix = "" })
    end)
  end)

  it("plucks one field", function()
    assert.are.same({ 2.5, 1, null, 6.4, 1 }, tables.pluck(rows, "mag"))
    assert.are.same({ false }, tables.pluck({ { on = false } }, "on"))
  end)

  it("gets what lies at a path", function()
    local value = { rows = { { name = "a" }, { name = "b" } }, none = null, off = false }
    assert.are.equal("b", tables.get(value, "rows.2.name"))
    assert.are.equal("b", tables.get(value, "rows.-1.name"))
    assert.are.equal("x", tables.get(value, "rows.3.name", "x"))
    assert.are.equal("x", tables.get(value, "none", "x"))
    assert.are.equal(false, tables.get(value, "off", "x"))
    assert.is_nil(tables.get(value, "rows.1.name.deeper"))
    assert.are.equal(5, tables.get({ ["1"] = 5 }, "1"))
  end)

  it("takes and drops from either end", function()
    local list = { 1, 2, 3, 4 }
    assert.are.same({ 1, 2 }, tables.take(list, 2))
    assert.are.same({ 3, 4 }, tables.take(list, -2))
    assert.are.same({}, tables.take(list, 0))
    assert.are.same(list, tables.take(list, 9))
    assert.are.same(list, tables.take(list, -9))
    assert.are.same({ 3, 4 }, tables.drop(list, 2))
    assert.are.same({ 1, 2 }, tables.drop(list, -2))
    assert.are.same({}, tables.drop(list, 9))
    assert.are.same({}, tables.drop(list, -9))
    refuses("tables.take: the first argument must be a list, not nil", tables.take)
    for _, n in ipairs { 1.5, "1", 0 / 0 } do assert.is_false((pcall(tables.take, list, n))) end
  end)

  it("reverses, and keeps each value once", function()
    assert.are.same({ 3, 2, 1 }, tables.reverse { 1, 2, 3 })
    assert.are.same({}, tables.reverse {})
    assert.are.same({ 3, "3", true, null }, tables.unique { 3, "3", 3, true, null, true, null })
    assert.are.equal(1, #tables.unique { 5LL, 5LL })
    assert.are.equal(1, #tables.unique { 0 / 0, 0 / 0 })
    refuses("tables.unique: element 2 is no plain value", tables.unique, { 1, {} })
  end)

  it("flattens by one level, or more", function()
    assert.are.same({ 1, 2, { 3 }, { a = 1 } },
      tables.flatten { { 1, 2 }, { { 3 } }, {}, { a = 1 } })
    assert.are.same({ 1, 2, 3 }, tables.flatten({ 1, { 2, { 3 } } }, 9))
    local list = { { 1 } }
    assert.are.same(list, tables.flatten(list, 0))
    assert.are_not.equal(list, tables.flatten(list, 0))
  end)

  it("makes ranges", function()
    assert.are.same({ 1, 2, 3 }, tables.range(1, 3))
    assert.are.same({ 3, 1, -1 }, tables.range(3, -2, -2))
    assert.are.same({}, tables.range(1, 0))
    assert.are.equal(11, #tables.range(0, 1, 0.1))
    refuses("tables.range: step must not be 0", tables.range, 1, 2, 0)
    refuses("tables.range: last must be a finite number", tables.range, 1)
    refuses("tables.range: last must be a finite number", tables.range, 1, math.huge)
    refuses("tables.range: 1000000000000 numbers are more than 10000000", tables.range, 1, 1e12)
  end)

  it("cuts into pieces", function()
    assert.are.same({ { 1, 2 }, { 3 } }, tables.chunk({ 1, 2, 3 }, 2))
    assert.are.same({}, tables.chunk({}, 2))
    refuses("tables.chunk: size must be a whole number from 1", tables.chunk, { 1 }, 0)
  end)

  it("puts lists together", function()
    assert.are.same({ 1, 2, 3 }, tables.concat({ 1 }, {}, { 2, 3 }))
    assert.are.same({}, tables.concat())
    assert.are.same({ { 1, "a" }, { 2, "b" } }, tables.zip({ 1, 2 }, { "a", "b" }))
    assert.are.same({}, tables.zip())
    refuses("tables.zip: the lists differ in length: 1 and 2", tables.zip, { 1 }, { 1, 2 })
    refuses("tables.concat: argument 2 must be a list, not nil", tables.concat, { 1 }, nil, { 2 })
  end)

  it("takes maps apart and puts them together, in order of their keys", function()
    local map = { b = 2, a = 1, c = null }
    assert.are.same({ "a", "b", "c" }, tables.keys(map))
    assert.are.same({ 1, 2, null }, tables.values(map))
    assert.are.same(
      { { key = "a", value = 1 }, { key = "b", value = 2 }, { key = "c", value = null } },
      tables.entries(map))
    assert.are.same(map, tables.from_entries(tables.entries(map)))
    assert.are.same({ ["1"] = "x" }, tables.from_entries { { key = 1, value = "x" } })
    assert.are.same({ a = 1, b = 3 }, tables.merge({ a = 1, b = 2 }, { b = 3 }))
    assert.are.equal(3, tables.count(map))
    assert.are.equal(5, tables.count(rows))
    assert.are.equal(0, tables.count({}))
  end)

  it("says of every function that it may run twice", function()
    for name, fun in pairs(tables) do
      if type(fun) == "function" then assert.is_true(tables._mpreg[name].idempotent) end
    end
  end)
end)
