-- Values as Lua text. MPREG_SEED=n repeats the random ones.
local ffi = require "ffi"
local mpreg = require "mpreg"
local render = require "mpreg.render.value"

local SEED = tonumber(os.getenv "MPREG_SEED") or os.time() % 1000000
local ROUNDS = 3000
local UNLIMITED = { depth = 200, items = math.huge, bytes = math.huge, total = math.huge }

local function refuse() error("the value's code was run", 0) end

-- A metatable of which every entry raises.
local function hostile()
  local metatable = {}
  for _, name in ipairs { "__index", "__newindex", "__pairs", "__ipairs", "__len", "__tostring",
    "__lt", "__le", "__eq", "__concat", "__call", "__unm", "__mod" } do
    metatable[name] = refuse
  end
  metatable.__metatable = "hidden"
  return metatable
end

local function hostile_userdata()
  local userdata = newproxy(true)
  local metatable = getmetatable(userdata)
  for name, f in pairs(hostile()) do metatable[name] = f end
  return userdata
end

local function load_back(text)
  local chunk = assert(loadstring("return " .. text))
  return setfenv(chunk, { mpreg = mpreg, math = math })()
end

-- Equal as values of ours: numbers by their bits, cdata by their text, marks by what they mark.
local function same(a, b)
  if type(a) ~= type(b) then return false end
  if type(a) == "number" then return a == b and 1 / a == 1 / b or a ~= a and b ~= b end
  if type(a) == "cdata" then return tostring(a) == tostring(b) end
  if type(a) ~= "table" then return a == b end
  local is_marked = next(a) == nil or getmetatable(a) == getmetatable(mpreg.bytes "")
  if is_marked and getmetatable(a) ~= getmetatable(b) then return false end
  for k, v in pairs(a) do
    if not same(v, rawget(b, k)) then return false end
  end
  for k in pairs(b) do
    if rawget(a, k) == nil then return false end
  end
  return true
end

local function pick(list) return list[math.random(#list)] end

local function random_string()
  local parts = {}
  for i = 1, math.random(0, 6) do
    parts[i] = math.random() < 0.6 and pick { "a", "end", "_1", " ", "ä", "漢", "\194\133", "\n",
      "\r\n", "\\", '"', "]]", "\0", "7", "\27[2J", "--" } or string.char(math.random(0, 255))
  end
  return table.concat(parts)
end

local function random_number()
  return pick { 0, -0, 1, -1, 2 ^ 53, -2 ^ 53 - 2, 0.1, 1e300, 5e-324, math.huge, -math.huge, 0 / 0,
    math.random(), math.random(-1000, 1000), math.random() * 10 ^ math.random(-300, 300) }
end

local function random_value(depth)
  local kind = math.random(depth < 5 and 10 or 6)
  if kind == 1 then return random_string() end
  if kind == 2 then return random_number() end
  if kind == 3 then return math.random() < 0.5 end
  if kind == 4 then return mpreg.null end
  if kind == 5 then
    return pick { 5LL, -9223372036854775807LL, 9223372036854775807LL, 18446744073709551615ULL }
  end
  if kind == 6 then return mpreg.bytes(random_string()) end
  local t = {}
  if kind < 10 then
    for i = 1, math.random(0, 6) do t[i] = random_value(depth + 1) end
  end
  if kind > 7 then
    for _ = 1, math.random(0, 6) do
      local key = pick { random_string, random_number, function() return math.random(-3, 12) end,
        function() return math.random() < 0.5 end }()
      if key == key then t[key] = random_value(depth + 1) end
    end
  end
  return next(t) == nil and math.random() < 0.5 and mpreg.array(t) or t
end

describe("render.value", function()
  it("writes scalars as Lua does", function()
    assert.are.equal("nil", render.text(nil))
    assert.are.equal("true", render.text(true))
    assert.are.equal("5", render.text(5))
    assert.are.equal("-0", render.text(-0))
    assert.are.equal("0.1", render.text(0.1))
    assert.are.equal("0.30000000000000004", render.text(0.1 + 0.2))
    assert.are.equal("1e+300", render.text(1e300))
    assert.are.equal("1.152921504606847e+18", render.text(2 ^ 60))
    assert.are.equal("0/0", render.text(0 / 0))
    assert.are.equal("-math.huge", render.text(-1 / 0))
    assert.are.equal('"a\\"b\\\\\\n\\x1b"', render.text 'a"b\\\n\27')
    assert.are.equal('"ä \\xc2\\x80\\xc2\\x9f"', render.text "ä \194\128\194\159")
    assert.are.equal('"\\xe4\\x00"', render.text "\228\0")
    assert.are.equal("9007199254740993LL", render.text(9007199254740993LL))
    assert.are.equal("18446744073709551615ULL", render.text(18446744073709551615ULL))
  end)

  it("says what is no data", function()
    local f = loadstring("return function()\nend", "@shop/cart.lua")()
    assert.are.equal("function: shop/cart.lua:1", render.text(f))
    assert.are.equal("function: builtin", render.text(print))
    assert.are.equal("thread: suspended", render.text(coroutine.create(print)))
    assert.are.equal("userdata", render.text(newproxy()))
    assert.are.equal("userdata: file", render.text(io.stdout))
    assert.are.equal("cdata<int [3]>", render.text(ffi.new("int[3]")))
  end)

  it("writes the platform's values as they are made", function()
    assert.are.equal("mpreg.null", render.text(mpreg.null))
    assert.are.equal('mpreg.bytes "a\\x00"', render.text(mpreg.bytes "a\0"))
    assert.are.equal("mpreg.array {}", render.text(mpreg.array {}))
    assert.are.equal("{ 1, mpreg.array {} }", render.text(mpreg.array { 1, mpreg.array {} }))
  end)

  it("writes tables with sorted keys, on one line if that fits", function()
    assert.are.equal("{}", render.text {})
    assert.are.equal('{ 1, 2, a = "x", ["b c"] = { c = true }, ["end"] = 1 }',
      render.text { 1, 2, ["b c"] = { c = true }, a = "x", ["end"] = 1 })
    assert.are.equal('{ 1, [-1.5] = 2, [3] = 3, b = 4, [false] = 5, [true] = 6 }',
      render.text { 1, nil, 3, b = 4, [-1.5] = 2, [true] = 6, [false] = 5 })
    assert.are.equal("{ 1, 2, [1.5] = 3 }", render.text { 1, 2, [1.5] = 3 })
    assert.are.equal([[
{
  "aaaaaaaaaaaaaaa",
  {
    "bbbbbbbbbbbbbbb",
    "ccccccccccccccc",
  },
}]], render.text({ ("a"):rep(15), { ("b"):rep(15), ("c"):rep(15) } }, { columns = 30 }))
  end)

  it("puts numbers of a long list beside each other", function()
    assert.are.equal([[
{
  100, 200, 300, 400,
  500, 600, 700,
  "eight",
  900, 1000, 1100,
  n = 1,
}]], render.text({ 100, 200, 300, 400, 500, 600, 700, "eight", 900, 1000, 1100, n = 1 },
      { columns = 21 }))
  end)

  it("keeps lines within the columns, whatever is before and behind a table", function()
    for columns = 12, 60 do
      local text = render.text({ name = { 1, 22, 333, { "x", y = "z" } }, a = { b = { c = 1 } } },
        { columns = columns })
      for line in text:gmatch("[^\n]+") do
        -- Longer ones cannot be divided: a name, a scalar, a comma.
        assert.is_true(#line <= columns or not line:find("{ ", 1, true), line)
      end
    end
  end)

  it("has limits, and knows cycles", function()
    assert.are.equal("{ 1, 2, … (+3) }", render.text({ 1, 2, 3, 4, 5 }, { items = 2 }))
    assert.are.equal("{ 1, a = 1, … (+2) }",
      render.text({ 1, a = 1, b = 2, c = 3 }, { items = 2 }))
    assert.are.equal("{ { {…} } }", render.text({ { { 1 } } }, { depth = 2 }))
    assert.are.equal("{ { {} } }", render.text({ { {} } }, { depth = 2 }))
    assert.are.equal('"aä" … (+4 bytes)', render.text("aäää", { bytes = 4 }))
    assert.are.equal('{ ["aaa" … (+2 bytes)] = 1 }', render.text({ aaaaa = 1 }, { bytes = 3 }))
    local cycle, shared = {}, { 1 }
    cycle[1] = cycle
    assert.are.equal("{ <cycle> }", render.text(cycle))
    assert.are.equal("{ { 1 }, { 1 } }", render.text { shared, shared })
    assert.are.equal("{ 1, 2, … (+3) }", render.text({ 1, 2, 3, 4, 5 }, { total = 7 }))
    assert.are.equal('{ "aaaaaaa", … (+2) }',
      render.text({ "aaaaaaa", "b", "c" }, { total = 10 }))
  end)

  it("writes the names that values have, in all places", function()
    local f, module = function() end, setmetatable({}, hostile())
    local names = setmetatable({ [f] = "function quakes.filter", [module] = "module quakes" },
      { __mode = "k" })
    assert.are.equal("function quakes.filter", render.text(f, { names = names }))
    assert.are.equal(
      "{ module quakes, a = function quakes.filter, [function quakes.filter] = 1 }",
      render.text({ module, a = f, [f] = 1 }, { names = names }))
  end)

  it("runs no code of the value", function()
    local object, key = setmetatable({ 1, x = 2 }, hostile()), setmetatable({}, hostile())
    assert.are.equal("{ 1, x = 2 } <metatable>", render.text(object))
    assert.are.equal("{ {} <metatable> }", render.text { setmetatable({}, hostile()) })
    assert.are.equal("{ [{…}] = 1, [{…}] = 1 }",
      render.text { [key] = 1, [setmetatable({}, hostile())] = 1 })
    assert.are.equal("userdata", render.text(hostile_userdata()))
    assert.are.equal("{ [userdata] = 1 }", render.text { [hostile_userdata()] = 1 })
    local metatable = setmetatable({}, hostile())
    assert.are.equal("{} <metatable>", render.text(setmetatable({}, metatable)))
    local ctype = ffi.metatype("struct { int render_value_spec; }",
      { __tostring = refuse, __index = refuse, __eq = refuse, __len = refuse })
    assert.matches("^cdata<struct [^>]*>$", render.text(ctype()))
  end)

  it("is quick on huge values", function()
    local list, map, deep, twice = {}, {}, {}, {}
    for i = 1, 1000000 do list[i] = i end
    for i = 1, 200000 do map["k" .. i] = i end
    for _ = 1, 100000 do deep = { deep } end
    for _ = 1, 100000 do twice = { twice, twice } end
    -- Not in seconds: a shared machine's say nothing. What is looked at is counted.
    local looks, next_of, rawget_of = 0, next, rawget
    local function counted(value, opts)
      looks = 0
      rawset(_G, "next", function(...) looks = looks + 1 return next_of(...) end)
      rawset(_G, "rawget", function(...) looks = looks + 1 return rawget_of(...) end)
      local ok, text = pcall(render.text, value, opts)
      rawset(_G, "next", next_of)
      rawset(_G, "rawget", rawget_of)
      assert(ok, text)
      assert.is_true(looks > 0 and looks < 200000, looks)
      assert.is_true(#text < 1000000, #text)
      return text
    end
    assert.are.equal("{ 1, 2, … (+999998 or more) }", counted(list, { items = 2 }))
    assert.matches("^{ k%d+ = %d+, … %(%+9999 or more%) }$", counted(map, { items = 1 }))
    assert.are.equal("{ { { { { { {…} } } } } } }", counted(deep))
    assert.matches("{…}", counted(deep, { depth = math.huge }), 1, true)
    assert.matches("{…}", counted(twice, { depth = math.huge }), 1, true)
    local maps = {}
    for i = 1, 100 do maps[i] = map end
    assert.matches("{…}", counted(maps), 1, true)
  end)

  it("paints if asked to, and the text stays the same", function()
    assert.are.equal('{ \27[32m"a"\27[0m, \27[34mb\27[0m = \27[36m1\27[0m, '
      .. '\27[34mc\27[0m = \27[33mtrue\27[0m, \27[2m… (+1)\27[0m }',
      render.text({ "a", b = 1, c = true, d = 1 }, { color = true, items = 3 }))
    math.randomseed(SEED)
    for _ = 1, 300 do
      local value = random_value(0)
      local painted = render.text(value, { color = true }):gsub("\27%[%d+m", "")
      assert.are.equal(render.text(value), painted, "seed " .. SEED)
    end
  end)

  it("writes data so that it loads back equal", function()
    math.randomseed(SEED)
    for round = 1, ROUNDS do
      local value = random_value(0)
      UNLIMITED.columns = math.random(1, 100)
      local text = render.text(value, UNLIMITED)
      assert.is_true(same(value, load_back(text)), ("seed %d, round %d: %s"):format(SEED, round,
        text))
    end
  end)
end)
