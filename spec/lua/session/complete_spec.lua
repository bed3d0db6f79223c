-- Completion of what is typed in a session. MPREG_SEED=n repeats the random texts.
local complete = require "mpreg.session.complete".complete

local SEED = tonumber(os.getenv "MPREG_SEED") or os.time() % 1000000
local ROUNDS = 2000

local NAMES = {
  quakes = { "filter", "fold", "load" }, geo = { "area", "distance" }, ["geo.grid"] = { "cells" },
  ["geo.grid.fine"] = { "cut" }, ["geology.rocks"] = { "hardness" },
}

local function f() end

local ENV = setmetatable({
  rows = { { id = 1, name = "a" }, [-1] = { last = 1 }, total = 2, ["not a name"] = 3, ["end"] = 4,
    ["key"] = { inner = { deepest = 1 } }, ["a\\\\b"] = { trap = 1 } },
  refused = setmetatable({ flag = false }, { __index = { flag = { trap = 1 } } }),
  s = "text", n = 5, flag = false,
  object = setmetatable({ own = f, size = 1, hidden = 1 }, { __index = setmetatable(
    { method = f, hidden = f, kind = "x" }, { __index = { oldest = f } }) }),
}, { __index = { string = string, tostring = tostring, table = table, type = type } })
ENV._G = ENV

local function run(text, env, names)
  local from, candidates = complete(text, env or ENV, names or NAMES)
  return from, candidates
end

local function names_for(text, env, names)
  local _, candidates = run(text, env, names)
  return table.concat(candidates, " ")
end

local function refuse() error("the session's code was run", 0) end

describe("session.complete", function()
  it("completes globals, those behind the environment, modules and keywords", function()
    assert.are.equal("rows", names_for "ro")
    assert.are.equal("tostring", names_for "x = tos")
    assert.are.equal("quakes", names_for "print(qua")
    assert.are.equal("function", names_for "func")
    assert.are.equal("table then tostring true type", names_for "t")
    assert.are.equal("", names_for "nothing_like_it")
    assert.is_true(#select(2, run "") > 30)
    assert.is_true(#select(2, run "x = rows + ") > 30)
  end)

  it("says from which byte on a candidate replaces the text", function()
    assert.are.equal(1, (run "ro"))
    assert.are.equal(5, (run "x = ro"))
    assert.are.equal(7, (run "geo . ar"))
    assert.are.equal(6, (run "rows."))
    assert.are.equal(6, (run "x\nab."))
    assert.are.equal(1, (run ""))
    assert.are.equal(9, (run "f('rows."))
  end)

  it("completes fields by every kind of path", function()
    assert.are.equal("key total", names_for "rows.")
    assert.are.equal("total", names_for "rows.to")
    assert.are.equal("total", names_for "_G._G.rows.t")
    assert.are.equal("inner", names_for "rows.key.")
    assert.are.equal("inner", names_for 'rows["key"].i')
    assert.are.equal("inner", names_for "rows [ [[key]] ] . ")
    assert.are.equal("deepest", names_for "return rows['key'].inner.d")
    assert.are.equal("id name", names_for "rows[1].")
    assert.are.equal("id name", names_for "rows[0x1].")
    assert.are.equal("last", names_for "rows[-1].")
    assert.are.equal("id name", names_for "rows -- a list\n  [1].")
    assert.are.equal("key total", names_for "1 ..rows.")
  end)

  it("follows no path that only running could tell", function()
    for _, text in ipairs { "f().", "rows[i].", "rows[1 + 1].", "rows[rows].", "f(rows).", "{}.",
      "(rows or x).", "rows:total.", "rows:total().", "n.", "flag.", "rows.nothing.", "end.",
      "rows.end.", '"text":', "f'text'.", "f('text').", "f[1]('text').", "5.", "rows['a\\n'].",
      "[1].", ".", "x :", "= ].", "goto ::", "x = nil.", "rows[true].", "x:rows.",
      "rows['a\\\\b'].", "refused.flag.", "rows[-x].", "rows.1." } do
      assert.are.equal("", names_for(text), text)
    end
    for _, text in ipairs { "...", "rows..", "rows[", "rows()" } do
      assert.are.equal(names_for "", names_for(text), text)
    end
  end)

  it("completes methods of strings and objects, only functions", function()
    assert.are.equal("upper", names_for "s:up")
    assert.are.equal("upper", names_for "s.up")
    assert.are.equal("upper", names_for 'x = ("text"):up')
    assert.are.equal("method oldest own", names_for "object:")
    assert.are.equal("hidden kind method oldest own size", names_for "object.")
    assert.are.equal("", names_for "rows:")
    assert.are.equal("", names_for "quakes:")
  end)

  it("completes modules of the cluster part by part", function()
    assert.are.equal("geo geology", names_for "ge")
    assert.are.equal("area distance grid", names_for "geo.")
    assert.are.equal("grid", names_for "geo.gr")
    assert.are.equal("cells fine", names_for "geo.grid.")
    assert.are.equal("cut", names_for "geo.grid.fine.")
    assert.are.equal("rocks", names_for "geology.")
    assert.are.equal("filter fold", names_for 'x = _G["quakes"].f')
    assert.are.equal("", names_for "eo.")
    assert.are.equal("", names_for "geo.grid.cells.")
  end)

  it("takes a variable for what it is, also under a module's name", function()
    assert.are.equal("", names_for("quakes.", { quakes = 5 }))
    assert.are.equal("filter fold load mine", names_for("quakes.", { quakes = { mine = 1 } }))
  end)

  it("is silent in strings, comments, numbers and commands", function()
    for _, text in ipairs { '"ro', "'ro", '"\\"ro', '"a\\\nro', '"\\z \n ro', "[[ro", "[==[ ]] ro",
      "[[a\nb\nro", "-- ro", "x = 1 -- ro", "--[[ro", "--[[a\nro", "--[=[ ]]\nro", "--[ ro", "0xro",
      "1e", ":ro", "  :ro", ":on ro", "x = 1\n:ro", "'it''s ro", "'\\", "'--' -- ro" } do
      local from, candidates = run(text)
      assert.are.same({}, candidates, text)
      assert.are.equal(#text + 1, from)
    end
    for _, text in ipairs { '"a" ro', "'\\'' ro", "[[a]] ro", "--[[a]] ro", "-- a\nro", "a - -ro",
      "[==[ ]] ]==] ro", "'broken\nro", "x = 'a\\\r\nb' ro", "a[[[b]]] .. ro", "1 ro", "1e-5 ro",
      "0xep1 ro", "x = y\n  or ro", "'\\z \n ' ro" } do
      assert.are.equal("rows", names_for(text), text)
    end
    assert.are.equal("upper", names_for "s\n  :up")
  end)

  it("runs no code", function()
    local count = 0
    local function counting() count = count + 1 end
    local hostile = { __pairs = counting, __ipairs = counting, __len = counting, __eq = counting,
      __index = counting, __newindex = counting, __tostring = counting, __call = counting,
      __metatable = "hidden" }
    local userdata = newproxy(true)
    local metatable = getmetatable(userdata)
    for name, handler in pairs(hostile) do metatable[name] = handler end
    local env = setmetatable({ module = setmetatable({ plain = 1 }, hostile), userdata = userdata,
      behind = setmetatable({}, { __index = setmetatable({ far = 1 }, hostile) }),
      raising = setmetatable({ here = f }, setmetatable({ __index = refuse },
        { __index = refuse })), half = setmetatable({ here = f }, setmetatable({}, hostile)) },
      hostile)
    assert.are.equal("module", names_for("mod", env))
    assert.are.equal("", names_for("unknown.", env))
    assert.are.equal("plain", names_for("module.", env))
    assert.are.equal("", names_for("module.missing.", env))
    assert.are.equal("", names_for("module:", env))
    assert.are.equal("", names_for("userdata.", env))
    assert.are.equal("far", names_for("behind.", env))
    assert.are.equal("here", names_for("raising:", env))
    assert.are.equal("here", names_for("half:", env))
    assert.are.equal("", names_for("half.missing.", env))
    assert.are.equal("", names_for("module[1].", env))
    assert.are.equal(0, count)
  end)

  it("has limits", function()
    local many, big, ring, long = {}, {}, {}, { a = 1 }
    for i = 1, 3000 do many["k" .. i] = i end
    for i = 1, 300000 do big["k" .. i] = i end
    setmetatable(ring, { __index = ring })
    long[("b"):rep(1000)] = 1
    local env = { many = many, big = big, ring = ring, long = long }
    local _, candidates = run("many.k", env)
    assert.are.equal(1000, #candidates)
    assert.are.equal("k1", candidates[1])
    local looks, next_of = 0, next
    rawset(_G, "next", function(...) looks = looks + 1 return next_of(...) end)
    local ok, from, found = pcall(complete, "big.k", env, NAMES)
    rawset(_G, "next", next_of)
    assert(ok, from)
    assert.are.equal(1000, #found)
    assert.is_true(looks > 1000 and looks < 101000, looks)
    assert.are.equal("", names_for("ring.", env))
    assert.are.equal("", names_for("ring.a.", env))
    assert.are.equal("a", names_for("long.", env))
    assert.are.equal("", names_for(("rows."):rep(40000)))
    assert.are.equal("", names_for((" "):rep(300000) .. "ro"))
  end)

  it("finds the ends of strings and comments in every text", function()
    math.randomseed(SEED)
    -- Pieces, and whether the cursor behind their n-th byte is in code.
    local PIECES = {
      { "x = 1;\n" }, { "a.b:c(d)\n" }, { "y[ [[z]] ] = -1\n" }, { "z = a - -b .. c\n" },
      { '"it\'s [[ -- "', true }, { "'\\'\\\\'", true }, { "'\\\n\\z  \n  '", true },
      { "[[ \"'\n--]]", true }, { "[=[ ]] ]]=]", true }, { "--[[ ' \n \" ]]", true },
      { "--[==[ ]] ]=] ]==]", true }, { "-- [[ it's\n", true }, { "--[=x ]]\n", true },
    }
    for round = 1, ROUNDS do
      local parts, is_inside, size = {}, {}, 0
      for i = 1, math.random(1, 8) do
        local piece = PIECES[math.random(#PIECES)]
        parts[i] = piece[1] .. " "
        for k = 1, #piece[1] - 1 do is_inside[size + k] = piece[2] end
        size = size + #parts[i]
      end
      local text = table.concat(parts)
      local where = ("seed %d, round %d: %s"):format(SEED, round, text)
      local _, candidates = run(text .. "ro")
      assert.are.equal("rows", table.concat(candidates, " "), where)
      local cut = math.random(size)
      local from, found = run(text:sub(1, cut))
      assert.is_true(from >= 1 and from <= cut + 1, where)
      -- What only begins a comment or a bracket is none yet.
      local begun = text:sub(1, cut):find("[%-%[=]$")
      if is_inside[cut] and not begun then assert.are.same({}, found, where .. "\n" .. cut) end
    end
  end)

  it("takes any bytes", function()
    math.randomseed(SEED)
    local PARTS = { "rows", ".", ":", "[", "]", "(", ")", '"', "'", "--", "[[", "]]", "\\", "\n",
      "1", " ", "geo", "\0", "\255", "=", "-", "key", "x", "_G" }
    for _ = 1, ROUNDS do
      local parts = {}
      for i = 1, math.random(0, 12) do parts[i] = PARTS[math.random(#PARTS)] end
      local text = table.concat(parts)
      local from, candidates = run(text)
      assert.is_true(from >= 1 and from <= #text + 1, "seed " .. SEED)
      local typed = text:sub(from)
      for i, name in ipairs(candidates) do
        assert.are.equal(typed, name:sub(1, #typed), "seed " .. SEED)
        assert.is_true(i == 1 or candidates[i - 1] < name, "seed " .. SEED)
      end
    end
  end)
end)
