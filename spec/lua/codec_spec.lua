-- Values through the codecs, and back. The oracles are other implementations: lua-messagepack for
-- the bytes, lua-cjson for the text (as far as it goes: 14 digits, no mark for arrays).
local ffi = require "ffi"
local codec = require "mpreg.codec"
local messagepack = require "MessagePack"
local cjson = require "cjson"

local SEED = tonumber(os.getenv("MPREG_SEED")) or 1802
local ROUNDS = 20000

local function hex(bytes)
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- Equal as values of ours: arrays and maps apart, numbers by their bits, cdata by their text.
local function same(a, b)
  if type(a) ~= type(b) then return false end
  if type(a) == "table" then
    for k, v in pairs(a) do
      if not same(v, b[k]) then return false end
    end
    for k in pairs(b) do
      if a[k] == nil then return false end
    end
    return next(a) ~= nil or codec.is_array(a) == codec.is_array(b)
  elseif type(a) == "number" then
    return a == b and 1 / a == 1 / b or a ~= a and b ~= b
  elseif type(a) == "cdata" then
    return tostring(a) == tostring(b)
  end
  return a == b
end

local function refused(value)
  local bytes, err = codec.encode(value)
  assert.is_nil(bytes)
  return (err.path or "") .. ": " .. err.message
end

local function nested(depth, inner)
  for _ = 1, depth do inner = { inner } end
  return inner
end

describe("mpreg.codec: values to MessagePack", function()
  it("sends integral numbers within 2^53 as integers, others as floats", function()
    for value, bytes in pairs {
      [0] = "00", [127] = "7f", [128] = "cc80", [-1] = "ff", [-33] = "d0df", [1e3] = "cd03e8",
      [2 ^ 53] = "cf0020000000000000", [-2 ^ 53] = "d3ffe0000000000000",
      [2 ^ 53 + 2] = "cb4340000000000001", [1.5] = "cb3ff8000000000000",
      [1 / 0] = "cb7ff0000000000000",
    } do
      assert.equal(bytes, hex(codec.encode(value)))
    end
    assert.equal("cb8000000000000000", hex(codec.encode(-0.0)))
    local nan = codec.decode(codec.encode(0 / 0))
    assert.is_true(nan ~= nan)
  end)

  it("sends 64-bit cdata as integers and gives them back as far as they need it", function()
    assert.equal("01", hex(codec.encode(1LL)))
    assert.equal("cf0020000000000001", hex(codec.encode(9007199254740993LL)))
    assert.equal("d38000000000000000", hex(codec.encode(-9223372036854775807LL - 1)))
    assert.equal("cfffffffffffffffff", hex(codec.encode(18446744073709551615ULL)))
    assert.equal(1, codec.decode(codec.encode(1LL)))
    assert.equal(2 ^ 53, codec.decode(codec.encode(9007199254740992ULL)))
    for _, value in ipairs { 9007199254740993LL, -9007199254740993LL, 9223372036854775807LL } do
      local back = codec.decode(codec.encode(value))
      assert.is_true(ffi.istype("int64_t", back))
      assert.is_true(back == value)
    end
    local back = codec.decode(codec.encode(18446744073709551615ULL))
    assert.is_true(ffi.istype("uint64_t", back))
    assert.is_true(back == 18446744073709551615ULL)
    -- each is an object of its own
    local pair = codec.decode(codec.encode { 9007199254740993LL, 9007199254740995LL })
    assert.is_false(pair[1] == pair[2])
  end)

  it("sends valid UTF-8 as text, other strings and mpreg.bytes as bytes", function()
    assert.equal("a368c3a9", hex(codec.encode("hé")))
    assert.equal("c401ff", hex(codec.encode("\255")))
    assert.equal("c403eda080", hex(codec.encode("\237\160\128")))
    assert.equal("c402c080", hex(codec.encode("\192\128")))
    assert.equal("c4026869", hex(codec.encode(codec.bytes("hi"))))
    assert.equal("hi", codec.decode(codec.encode(codec.bytes("hi"))))
    assert.equal("hi", tostring(codec.bytes("hi")))
    assert.equal("a3610062", hex(codec.encode("a\0b")))
  end)

  it("has nil, and mpreg.null for null inside tables", function()
    assert.equal("c0", hex(codec.encode(nil)))
    assert.equal("c0", hex(codec.encode(codec.null)))
    assert.is_nil(codec.decode("\192"))
    assert.equal("9301c002", hex(codec.encode { 1, codec.null, 2 }))
    assert.equal(codec.null, codec.decode("\145\192")[1])
    assert.equal(cjson.null, codec.null)
  end)

  it("tells lists and maps apart by their keys, and empty ones by the mark", function()
    assert.equal("93010203", hex(codec.encode { 1, 2, 3 }))
    assert.equal("81a161c3", hex(codec.encode { a = true }))
    assert.equal("80", hex(codec.encode {}))
    assert.equal("90", hex(codec.encode(codec.array {})))
    assert.equal("90", hex(codec.encode(codec.array())))
    assert.equal("9101", hex(codec.encode(codec.array { 1 })))
    assert.is_true(codec.is_array(codec.decode("\144")))
    assert.is_false(codec.is_array(codec.decode("\128")))
    assert.equal("90", hex(codec.encode(codec.decode("\144"))))
    local backwards = {}
    for i = 20, 1, -1 do backwards[i] = i end
    assert.equal("dc0014", hex(codec.encode(backwards)):sub(1, 6))
    assert.is_true(same(backwards, codec.decode(codec.encode(backwards))))
    local holed = { 1, 2, 3, 4 }
    holed[4] = nil
    assert.equal("93010203", hex(codec.encode(holed)))
    local emptied = { a = 1 }
    emptied.a = nil
    assert.equal("80", hex(codec.encode(emptied)))
  end)

  it("ignores metatables that are no marks", function()
    local backed = setmetatable({ a = 1 }, { __index = { b = 2 }, __len = error, __pairs = error })
    assert.equal("81a16101", hex(codec.encode(backed)))
  end)

  it("refuses other keys at their place", function()
    local hole = "[2]: a list has a hole here"
    assert.equal(hole, refused { 1, nil, 3 })
    assert.equal(hole, refused { [1] = 1, [4] = 1 })
    assert.equal(".a" .. hole, refused { a = codec.array { 1, nil, 3 } })
    assert.equal("[1]: a list has a hole here", refused { [5] = 1 })
    assert.equal(".x: a table is a list (keys 1 to n) or a map (string keys), not both",
      refused { 1, 2, x = 1 })
    assert.equal(".x: a table is a list (keys 1 to n) or a map (string keys), not both",
      refused { x = 1, [7] = 1 })
    assert.equal(".x: an array cannot have string keys", refused(codec.array { x = 1 }))
    assert.equal("[true]: only strings and 1 to n can be keys", refused { [true] = 1 })
    assert.equal(".a[1.5]: this number cannot be a key", refused { a = { [1.5] = 1 } })
    assert.equal("[0]: this number cannot be a key", refused { [0] = 1, 1 })
    assert.equal("[-1]: this number cannot be a key", refused { [-1] = 1 })
    assert.equal("[1e+300]: this number cannot be a key", refused { [1e300] = 1 })
    assert.equal("[table]: only strings and 1 to n can be keys", refused { [{}] = 1 })
    local _, err = codec.encode { 1, nil, 3 }
    assert.matches("mpreg.null", err.hint, 1, true)
  end)

  it("refuses what is no data at its place", function()
    assert.equal(": a function cannot be sent", refused(print))
    assert.equal(".items[3].callback: a function cannot be sent",
      refused { items = { 1, 2, { callback = print } } })
    assert.equal('["odd key"]: a coroutine cannot be sent',
      refused { ["odd key"] = coroutine.create(print) })
    assert.equal("[1]: a userdata cannot be sent", refused { io.stdout })
    assert.equal(": an FFI object cannot be sent", refused(ffi.new("int", 3)))
    assert.equal(".p: an FFI object cannot be sent", refused { p = ffi.new("char[4]") })
    assert.equal(": mpreg.bytes holds no string", refused((function()
      local b = codec.bytes("x")
      b[1] = 5
      return b
    end)()))
  end)

  it("refuses cycles and nesting over 128", function()
    local loop = {}
    loop.x = { loop }
    assert.equal(".x[1]: a cycle: this table contains itself", refused(loop))
    local twice = { 1 }
    assert.equal("9291019101", hex(codec.encode { twice, twice }))
    assert.is_true(same(nested(128, 1), codec.decode(codec.encode(nested(128, 1)))))
    assert.matches("nesting is over 128", refused(nested(129, 1)))
    assert.matches("nesting is over 128", refused(nested(100000, 1)))
  end)

  it("sends argument lists and names the one that it refuses", function()
    assert.equal("9301c0a178", hex(codec.encode_args(1, nil, "x")))
    assert.equal("90", hex(codec.encode_args()))
    assert.equal("93c0c0c0", hex(codec.encode_args(nil, nil, nil)))
    local _, err = codec.encode_args(1, { a = print })
    assert.equal(2, err.argument)
    assert.equal(".a", err.path)
    assert.equal(4, select("#", codec.decode_args(codec.encode_args(1, nil, "x", nil))))
    assert.same({ 1, "x" }, { codec.decode_args("\146\1\161x") })
  end)
end)

describe("mpreg.codec: MessagePack to values", function()
  local function fails(bytes)
    local value, err = codec.decode(bytes)
    assert.is_nil(value)
    return (err.path or "") .. ": " .. err.message
  end

  it("refuses what is not exactly one value", function()
    local early = ": the bytes end early or are no MessagePack"
    for _, bytes in ipairs { "", "\193", "\145", "\161", "\221\255\255\255\255",
      "\223\255\255\255\255", "\219\255\255\255\255", "\198\255\255\255\255x" } do
      assert.equal(early, fails(bytes))
    end
    assert.equal(": there are bytes behind the value", fails("\1\1"))
    assert.equal(".a[2].b" .. early, fails("\129\161a\146\1\129\161b\193"))
    assert.equal("[2].b" .. early, fails("\146\1\130\161a\1\161b\145"))
  end)

  it("refuses keys that are no strings, extensions and deep nesting", function()
    assert.equal("[2]: a map has a key that is no string", fails("\146\1\129\1\2"))
    assert.equal(".b: a map has a key that is no string",
      fails("\130\161a\1\161b\130\161c\1\5\1"))
    assert.equal("[2]: a MessagePack extension cannot be read", fails("\146\1\212\5\1"))
    assert.matches("nesting is over 128", fails(("\145"):rep(129) .. "\1"))
    assert.matches("nesting is over 128", fails(("\145"):rep(100000) .. "\1"))
    assert.matches("nesting is over 128", fails(("\129\161a"):rep(100000) .. "\1"))
  end)

  it("believes no count that the open containers leave no bytes for", function()
    -- each header alone is credible, all of them together are not
    local bytes = ("\221\0\0\1\0"):rep(100) .. ("\1"):rep(300)
    collectgarbage()
    local before = collectgarbage("count")
    collectgarbage("stop")
    assert.matches("end early", fails(bytes))
    local grown = collectgarbage("count") - before
    collectgarbage("restart")
    assert.is_true(grown < 64)
  end)

  it("refuses argument lists that are none or too long", function()
    local value, err = codec.decode_args("\1")
    assert.is_nil(value)
    assert.equal("the arguments are no array", err.message)
    value, err = codec.decode_args("\220\3\233" .. ("\1"):rep(1001))
    assert.is_nil(value)
    assert.equal("there are 1001 arguments, over 1000", err.message)
    assert.equal(1000, select("#", codec.decode_args("\220\3\232" .. ("\1"):rep(1000))))
    value, err = codec.decode_args("\146\1\145\193")
    assert.is_nil(value)
    assert.equal(2, err.argument)
  end)
end)

describe("mpreg.codec: JSON", function()
  it("prints and reads each kind of value", function()
    for text, value in pairs {
      ["null"] = codec.null, ["true"] = true, ["4.5"] = 4.5, ["-0"] = -0.0,
      ['"h\\u0000é"'] = "h\0é", ["[]"] = codec.array {}, ["{}"] = {},
      ["[1,[2],{}]"] = { 1, { 2 }, {} },
      ['{"$int":"9007199254740993"}'] = 9007199254740993LL, ['{"$bytes":"/w=="}'] = "\255",
      ['{"$lit":{"$int":"5"}}'] = { ["$int"] = "5" }, ['{"$ref":"a"}'] = { ["$ref"] = "a" },
    } do
      assert.equal(text, codec.json_encode(value))
      if value ~= codec.null then assert.is_true(same(value, codec.json_decode(text))) end
    end
    assert.is_nil(codec.json_decode("null"))
  end)

  it("prints keys in order and short containers on a line, if asked to", function()
    local value = { b = { 1, 2 }, a = { c = codec.null }, d = ("x"):rep(70) }
    assert.equal(('{"a":{"c":null},"b":[1,2],"d":"%s"}'):format(value.d),
      codec.json_encode(value, { sort_keys = true }))
    assert.equal(('{\n  "a": {"c": null},\n  "b": [1, 2],\n  "d": "%s"\n}'):format(value.d),
      codec.json_encode(value, { sort_keys = true, pretty = true }))
  end)

  it("says where it fails", function()
    local value, err = codec.json_decode('{"a": [1,\n  nan]}')
    assert.is_nil(value)
    assert.same({ line = 2, column = 3, path = ".a[1]",
      message = "this is no JSON value (strings stand in double quotes)" }, err)
    value, err = codec.json_encode { a = { 1, 0 / 0 } }
    assert.is_nil(value)
    assert.same({ path = ".a[2]", message = "JSON has no NaN" }, err)
    value, err = codec.json_encode { a = print }
    assert.is_nil(value)
    assert.equal(".a", err.path)
  end)

  it("does not depend on the locale", function()
    local before = os.setlocale(nil, "numeric")
    for _, name in ipairs { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8" } do
      if os.setlocale(name, "numeric") then break end
    end
    local text, value = codec.json_encode(0.1 + 0.2), codec.json_decode("0.30000000000000004")
    os.setlocale(before, "numeric")
    assert.equal("0.30000000000000004", text)
    assert.equal(0.1 + 0.2, value)
  end)
end)

-- A generator of its own, so that a seed gives the same values everywhere.
local Random = {}
Random.__index = Random

function Random.new(seed) return setmetatable({ state = seed % 2147483647 + 1 }, Random) end

-- An integer from 1 to n.
function Random:upto(n)
  self.state = self.state * 48271 % 2147483647
  return self.state % n + 1
end

function Random:pick(list) return list[self:upto(#list)] end

local SNIPPETS = { "a", "B", "7", "é", "漢", "😀", "\n", "\"", "\\", "\0", "/", "$int", "$lit", " ",
  "{", "\127", "\194\133", "\226\128\168" }
local BROKEN = { "\255", "\192\128", "\237\160\128", "\240\159" }

function Random:text(max)
  local parts = {}
  for i = 1, self:upto(max + 1) - 1 do parts[i] = self:pick(SNIPPETS) end
  return table.concat(parts)
end

local EDGES = { 0, 1, 31, 32, 127, 128, 255, 256, 65535, 65536, 2 ^ 31, 2 ^ 32, 2 ^ 53 - 1, 2 ^ 53,
  2 ^ 53 + 2, 1e15, 1e16, 1e17, 1e300, 5e-324, 0.1, 1 / 3, 123456.789, 1e-5, 2 ^ 63, 2 ^ 64 }

function Random:number()
  local kind = self:upto(4)
  if kind == 1 then return self:pick(EDGES) * (self:upto(2) * 2 - 3) end
  if kind == 2 then return self:upto(2000) - 1000 end
  if kind == 3 then return (self:upto(2 ^ 30) - 2 ^ 29) / 10 ^ self:upto(9) end
  return (self:upto(2 ^ 30) / 7) * 2 ^ (self:upto(200) - 100)
end

-- A value, and whether any part of it is beyond what the oracles hold.
function Random:value(depth, opts)
  local kind = self:upto(depth > 0 and 10 or 7)
  if kind == 1 then return self:upto(2) == 1 end
  if kind == 2 then return codec.null end
  if kind <= 4 then return self:number() end
  if kind == 5 and opts.wide then
    local distance = ffi.cast("int64_t", self:upto(2 ^ 30))
    local kind64 = self:upto(3)
    if kind64 == 1 then return 18446744073709551615ULL - ffi.cast("uint64_t", distance) end
    if kind64 == 2 then return 9007199254740992LL + distance end
    return -9007199254740992LL - distance * distance
  end
  if kind == 6 and opts.bytes then return self:text(3) .. self:pick(BROKEN) end
  if kind <= 7 then return self:text(self:upto(40)) end
  local count = self:upto(self:upto(8) == 1 and 40 or 6) - 1
  local t = {}
  if kind <= 8 then
    for i = 1, count do t[i] = self:value(depth - 1, opts) end
    return count == 0 and codec.array(t) or t
  end
  if opts.forms and self:upto(6) == 1 then
    t[self:pick { "$int", "$bytes", "$lit", "$ref" }] = self:value(depth - 1, opts)
    return t
  end
  for _ = 1, count do
    local key = self:text(4)
    if key:sub(1, 1) ~= "$" or opts.forms then t[key] = self:value(depth - 1, opts) end
  end
  return t
end

describe("mpreg.codec: random values", function()
  local random

  setup(function()
    random = Random.new(SEED)
    print("# codec_spec: MPREG_SEED=" .. SEED)
    messagepack.set_string("string")
  end)

  -- What lua-messagepack makes of them: null and array marks are ours alone.
  local function plain(value)
    if value == codec.null then return nil end
    return value
  end

  it("come back from MessagePack and from JSON as they were", function()
    for round = 1, ROUNDS do
      local value = random:value(4, { wide = true, bytes = true, forms = true })
      local bytes, err = codec.encode(value)
      assert(bytes, err and err.message)
      local back = codec.decode(bytes)
      if not same(plain(value), back) then error("MessagePack, round " .. round) end
      local text = assert(codec.msgpack_to_json(bytes))
      local again = assert(codec.json_to_msgpack(text))
      if again ~= bytes then error("JSON, round " .. round .. ": " .. text) end
      local pretty = assert(codec.msgpack_to_json(bytes, { pretty = true }))
      if codec.json_to_msgpack(pretty) ~= bytes then error("pretty, round " .. round) end
      local options = { sort_keys = true, pretty = round % 2 == 0 }
      local sorted = assert(codec.msgpack_to_json(bytes, options))
      if not same(back, codec.json_decode(sorted)) then error("sorted, round " .. round) end
    end
  end)

  it("mean the same to lua-messagepack", function()
    -- It knows no null in tables, packs -0 as 0 and -2^63 as an integer, unpacks no denormals.
    local function strip(value)
      if value == codec.null then return "null" end
      if value == 0 or value == 5e-324 or value == -5e-324 then return 0 end
      if type(value) == "cdata" then return tonumber(value) end
      if type(value) ~= "table" then return value end
      local t = {}
      for k, v in pairs(value) do t[k] = strip(v) end
      return t
    end
    for round = 1, ROUNDS do
      local value = strip(random:value(4, { bytes = true }))
      local theirs = messagepack.unpack(assert(codec.encode(value)))
      if not same(value, strip(theirs)) then error("unpacked by the other, round " .. round) end
      local ours = codec.decode(messagepack.pack(value))
      if not same(value, strip(ours)) then error("packed by the other, round " .. round) end
    end
  end)

  it("mean the same to lua-cjson", function()
    local function round_number(value)
      if type(value) == "number" then return tonumber(("%.14g"):format(value)) end
      if type(value) ~= "table" then return value end
      local t = {}
      for k, v in pairs(value) do t[k] = round_number(v) end
      return t
    end
    for round = 1, ROUNDS do
      local value = round_number(random:value(4, {}))
      local text = assert(codec.json_encode(value))
      local theirs = round_number(cjson.decode(text))
      if not same(value, theirs) then error("read by the other, round " .. round) end
      local ours = assert(codec.json_decode(cjson.encode({ value })))[1]
      if not same(value, round_number(ours)) then error("printed by the other, round " .. round) end
    end
  end)

  it("broken at random never crash the decoders", function()
    for _ = 1, ROUNDS do
      local bytes = codec.encode(random:value(4, { wide = true, bytes = true }))
      local at = random:upto(#bytes)
      local broken = bytes:sub(1, at - 1) .. string.char(random:upto(256) - 1) .. bytes:sub(at + 1)
      local value = codec.decode(broken)
      if value ~= nil then assert(codec.encode(value)) end
      codec.msgpack_to_json(broken)
      codec.json_decode(broken)
      codec.decode(bytes:sub(1, at - 1))
    end
  end)
end)
