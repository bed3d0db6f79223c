local codec = require "mpreg.codec"
local node = require "spec.support.node"

--- Everything that can be wrong with a call or a graph, seen from outside: code, reason, the place
--- that is named, and the exit code.
describe("bad input", function()
  local n, folder

  local function write(name, text)
    local path = folder .. "/" .. name
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  setup(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir -p " .. folder .. "/modules") == 0)
    write("modules/bad.lua", [[
      local mpreg = require "mpreg"
      local bad = { _VERSION = "1.0.0" }
      local attempts = 0
      function bad.id(...) return ... end
      function bad.hole() return { 1, nil, 3 } end
      function bad.mixed() return { rows = { { 1, x = 2 } } } end
      function bad.boolean_key() return { [true] = 1 } end
      function bad.fun() return { items = { {}, {}, { callback = print } } } end
      function bad.plain_fun() return print end
      function bad.thread() return { coroutine.create(print) } end
      function bad.userdata() return newproxy and newproxy() or io.stdout end
      function bad.cycle() local t = {} t.a = { t } return t end
      function bad.deep() local t = {} for _ = 1, 200 do t = { t } end return t end
      function bad.infinity() return { list = { 1, 1 / 0 } } end
      function bad.nothing() end
      function bad.nil_message() return nil, "not today" end
      function bad.nil_error()
        return nil, { code = "NOT_FOUND", reason = "NO_ROW", message = "m" }
      end
      function bad.own_code() error { code = "OUT_OF_STOCK", message = "none left" } end
      function bad.canonical() error { code = "PERMISSION_DENIED", message = "not you" } end
      function bad.invalid() error { code = "INVALID_ARGUMENT", message = "no" } end
      function bad.unknown() error "again" end
      function bad.final() error { code = "UNAVAILABLE", message = "never", retry = false } end
      function bad.recurse(k) return mpreg.call("bad.recurse", k + 1) end
      function bad.calls_unknown() return mpreg.call("bad.nowhere") end
      function bad.large(size) return ("x"):rep(size) end
      bad.gpu = function() return 1 end
      bad.both = function() return 1 end
      bad._mpreg = { gpu = { needs = { "gpu" } }, both = { needs = { "data", "gpu" } } }
      return bad
    ]])
    write("modules/silent.lua", "local x = 1")
    write("modules/syntax.lua", "return {\n  a = = 1 }")
    write("modules/broken.lua", "local M = {}\nerror 'at load'\nreturn M")
    n = node.start { "--name", "n1", "--workers", "2", "--load", folder .. "/modules",
      "--resource", "data", "--value-max", "2M" }
  end)

  teardown(function()
    local ok, err = pcall(n.stop, n)
    node.stop_all()
    os.execute("rm -r " .. folder)
    assert(ok, err)
  end)

  --- Runs a command with -o json and compares: exit code, CODE/REASON, patterns of the message.
  local function refused(exit, name, patterns, ...)
    local args = { ... }
    local opts = type(args[#args]) == "table" and table.remove(args) or nil
    table.insert(args, 2, "-o")
    table.insert(args, 3, "json")
    local r = n:mpreg(args, opts)
    local what = ("mpreg %s\nstdout: %s\nstderr: %s"):format(table.concat(args, " "),
      r.out:sub(1, 2000), r.err)
    local document = codec.json_decode(r.out)
    assert.is_table(document, what)
    local err = document.error
    assert.is_table(err, what)
    assert.are.equal(name, err.code .. "/" .. tostring(err.reason), what)
    assert.are.equal(exit, r.code, what)
    local text = tostring(err.message) .. "\n" .. tostring(err.hint)
    for _, pattern in ipairs(patterns) do
      assert.is_truthy(text:find(pattern, 1, true), ("'%s' in %s"):format(pattern, what))
    end
    return err, document
  end

  local function graph(exit, name, patterns, text)
    local err, document = refused(exit, name, patterns, "run", "-", { stdin = text })
    if exit ~= 1 and exit ~= 4 then
      -- The same is found without running anything.
      refused(exit, name, patterns, "plan", write("graph.json", text))
    end
    return err, document
  end

  describe("of calls", function()
    it("names near misses of an unknown function", function()
      refused(3, "NOT_FOUND/UNKNOWN_FUNCTION", { "bad.i", "bad.id" }, "call", "bad.i")
      refused(3, "NOT_FOUND/UNKNOWN_FUNCTION", { "nowhere.f" }, "call", "nowhere.f")
    end)

    it("says who lacks what", function()
      refused(3, "FAILED_PRECONDITION/UNSATISFIABLE", { "gpu" }, "call", "bad.gpu")
      refused(3, "FAILED_PRECONDITION/UNSATISFIABLE", { "n1", "data", "gpu" }, "call", "bad.both")
      refused(3, "FAILED_PRECONDITION/UNSATISFIABLE", { "gpu" }, "call", "bad.id", "--need", "data",
        "--need", "gpu")
    end)

    it("says which versions there are", function()
      refused(3, "FAILED_PRECONDITION/NO_VERSION", { "1.0.0", "2.0.0" }, "call", "bad.id",
        "--version", "2.0.0")
      refused(3, "FAILED_PRECONDITION/NO_VERSION", { "1.0.0" }, "call", "bad.id", "--version",
        ">=1.0,<1.0.0")
      refused(2, "INVALID_ARGUMENT/BAD_VERSION", { "latest" }, "call", "bad.id", "--version",
        "latest")
    end)

    it("knows neither other nodes nor other clusters", function()
      refused(3, "UNAVAILABLE/NO_NODE", { "n9", "n1" }, "call", "bad.id", "--on", "n9")
      refused(5, "PERMISSION_DENIED/CLUSTER_MISMATCH", { "elsewhere", "default" }, "call", "bad.id",
        "--cluster", "elsewhere")
    end)

    it("refuses values that are too large: an argument before, a result after", function()
      local big = '"' .. ("x"):rep(3 * 2 ^ 20) .. '"'
      local r = n:mpreg({ "call", "bad.id", "-", "-o", "json" }, { stdin = big })
      local err = codec.json_decode(r.out).error
      assert.are.equal("TOO_LARGE", err.reason)
      assert.are.equal(2, r.code)
      r = n:mpreg { "call", "bad.large", "3000000", "-o", "json" }
      err = codec.json_decode(r.out).error
      assert.are.same({ "TOO_LARGE", 1 }, { err.reason, r.code })
      assert.are.equal(0, n:mpreg({ "call", "bad.large", "1000000" }).code)
    end)

    it("names JSON's faults with their place", function()
      for text, pattern in pairs { ['{"a": 1,}'] = "column 9", ['{"a":1,"b":{"x":1,"x":2}}'] = ".b",
        ["[1, 2"] = "column", ['"\\q"'] = "column", ["[18446744073709551617]"] = "[1]",
        [("["):rep(200) .. ("]"):rep(200)] = "128" } do
        refused(2, "INVALID_ARGUMENT/BAD_JSON", { "argument 1", pattern }, "call", "bad.id", text)
      end
      refused(2, "INVALID_ARGUMENT/BAD_JSON", { "argument 2, stdin at line 2" }, "call", "bad.id",
        "1", "-", { stdin = "[1,\n x]" })
    end)
  end)

  describe("of results", function()
    it("names the place of what cannot be sent", function()
      local places = {
        hole = "result", mixed = "result.rows[1]", boolean_key = "result", thread = "result[1]",
        fun = "result.items[3].callback: a function cannot be sent", plain_fun = "a function",
        userdata = "result", cycle = "result.a[1]", deep = "128",
      }
      for fun, place in pairs(places) do
        local err = refused(1, "INTERNAL/UNENCODABLE", { place }, "call", "bad." .. fun)
        assert.are.equal("bad." .. fun, err.fun)
      end
    end)

    it("refuses as JSON what JSON cannot say, with its place", function()
      refused(1, "INTERNAL/UNENCODABLE", { ".list[2]" }, "call", "bad.infinity")
      assert.are.equal(0, n:mpreg({ "call", "bad.infinity" }).code)
    end)

    it("takes nil and a second value for a failure", function()
      refused(1, "UNKNOWN/FUNCTION_ERROR", { "not today" }, "call", "bad.nil_message")
      refused(1, "NOT_FOUND/NO_ROW", { "m" }, "call", "bad.nil_error")
      assert.are.equal("null\n", n:mpreg({ "call", "bad.nothing" }).out)
    end)

    it("keeps a function's own codes", function()
      refused(1, "UNKNOWN/OUT_OF_STOCK", { "none left" }, "call", "bad.own_code")
      local err = refused(1, "PERMISSION_DENIED/FUNCTION_ERROR", { "not you" }, "call",
        "bad.canonical")
      assert.are.same({ "n1", "1.0.0", 1 }, { err.node, err.version, err.attempt })
      assert.are.equal("bad.lua", err.traceback[1].file)
      assert.are.equal("canonical", err.traceback[1]["function"])
    end)

    it("retries what may pass, and nothing else", function()
      assert.are.equal(3, (refused(1, "UNKNOWN/FUNCTION_ERROR", {}, "call", "bad.unknown",
        "--retries", "2")).attempt)
      assert.are.equal(1, (refused(1, "INVALID_ARGUMENT/FUNCTION_ERROR", {}, "call",
        "bad.invalid", "--retries", "2")).attempt)
      assert.are.equal(1, (refused(1, "UNAVAILABLE/FUNCTION_ERROR", {}, "call", "bad.final",
        "--retries", "2")).attempt)
    end)

    it("stops calls that call too deep, and tells nested failures", function()
      local err = refused(1, "RESOURCE_EXHAUSTED/CALL_DEPTH", {}, "call", "bad.recurse", "1")
      assert.is_true(#err.traceback > 0)
      refused(1, "NOT_FOUND/UNKNOWN_FUNCTION", { "bad.nowhere" }, "call", "bad.calls_unknown")
    end)
  end)

  describe("of modules", function()
    it("is logged with file and line, and the node goes on without them", function()
      local log = n:err()
      assert.is_truthy(log:find("syntax.lua:2", 1, true), log)
      assert.is_truthy(log:find("broken.lua:2", 1, true), log)
      assert.is_truthy(log:find("silent", 1, true), log)
      local r = n:mpreg { "modules", "-o", "json" }
      local names = {}
      for _, module in ipairs(codec.json_decode(r.out).modules) do names[module.name] = true end
      assert.is_true(names.bad)
      assert.is_nil(names.syntax)
      assert.is_nil(names.broken)
      assert.is_nil(names.silent)
    end)
  end)

  describe("of graphs", function()
    local function steps(...) return '{"steps":[' .. table.concat({ ... }, ",") .. "]}" end

    it("is refused before anything runs", function()
      graph(2, "INVALID_ARGUMENT/CYCLE", { "a -> b -> a" },
        steps('{"name":"a","call":"bad.id","args":[{"$ref":"b"}]}',
          '{"name":"b","call":"bad.id","after":["a"]}'))
      graph(2, "INVALID_ARGUMENT/SELF_REFERENCE", { "a" },
        steps '{"name":"a","call":"bad.id","args":[{"$ref":"a.x"}]}')
      graph(2, "INVALID_ARGUMENT/UNKNOWN_STEP", { "evnts", "events" },
        steps('{"name":"events","call":"bad.id"}',
          '{"name":"b","call":"bad.id","args":[{"$ref":"evnts"}]}'))
      graph(2, "INVALID_ARGUMENT/DUPLICATE_STEP", { "a" },
        steps('{"name":"a","call":"bad.id"}', '{"name":"a","call":"bad.id"}'))
      graph(2, "INVALID_ARGUMENT/EMPTY_GRAPH", {}, '{"steps":[]}')
      graph(2, "INVALID_ARGUMENT/EMPTY_GRAPH", {}, '{"name":"x"}')
      for _, path in ipairs { "a..b", "a[", "a[0]", 'a[\\"x', "a.", "a[x]", "", ".x", "a b" } do
        graph(2, "INVALID_ARGUMENT/BAD_PATH", {}, steps('{"name":"a","call":"bad.id"}',
          ('{"name":"b","call":"bad.id","args":[{"$ref":"%s"}]}'):format(path)))
      end
      graph(2, "INVALID_ARGUMENT/UNKNOWN_OPERATOR", { "$reff" },
        steps '{"name":"a","call":"bad.id","args":[{"$reff":"x"}]}')
      graph(2, "INVALID_ARGUMENT/BAD_NAME", { "input" }, steps '{"name":"input","call":"bad.id"}')
      graph(2, "INVALID_ARGUMENT/UNKNOWN_OPTION", { "retires", "retries" },
        steps '{"name":"a","call":"bad.id","retires":3}')
      graph(2, "INVALID_ARGUMENT/BAD_OPTION", { "retries" },
        steps '{"name":"a","call":"bad.id","retries":-1}')
      graph(2, "INVALID_ARGUMENT/BAD_ITEM", {},
        steps '{"name":"a","call":"bad.id","args":[{"$item":""}]}')
      for _, text in ipairs { "[]", "1", '{"steps":{"a":1}}', '{"steps":[1]}',
        '{"steps":[{"call":"bad.id"}]}', '{"steps":[{"name":"a"}]}' } do
        local r = n:mpreg({ "run", "-", "-o", "json" }, { stdin = text })
        assert.are.same({ 2, "INVALID_ARGUMENT" },
          { r.code, codec.json_decode(r.out).error.code }, text)
      end
    end)

    it("is refused for what nobody can serve", function()
      local err = graph(3, "NOT_FOUND/UNKNOWN_FUNCTION", { "bad.i" },
        steps '{"name":"a","call":"bad.i"}')
      assert.are.equal("a", err.step)
      graph(3, "FAILED_PRECONDITION/UNSATISFIABLE", { "gpu" },
        steps '{"name":"a","call":"bad.id","needs":["gpu"]}')
      graph(3, "FAILED_PRECONDITION/NO_VERSION", { "1.0.0" },
        steps '{"name":"a","call":"bad.id","version":"^3"}')
    end)

    it("tells all faults together, in the order of the steps", function()
      local err = graph(2, "INVALID_ARGUMENT/UNKNOWN_STEP", {},
        steps('{"name":"a","call":"bad.id","args":[{"$ref":"x"},{"$ref":"y"}]}',
          '{"name":"b","call":"bad.id","retires":1}', '{"name":"c","call":"bad.nowhere"}',
          '{"name":"b","call":"bad.id"}'))
      local reasons = {}
      for i, fault in ipairs(err.faults) do reasons[i] = fault.step .. " " .. fault.reason end
      assert.are.same({ "a UNKNOWN_STEP", "a UNKNOWN_STEP", "b UNKNOWN_OPTION",
        "c UNKNOWN_FUNCTION", "b DUPLICATE_STEP" }, reasons)
    end)

    it("fails the step that meets a missing field, naming the path and what is there", function()
      local err, run = graph(1, "INVALID_ARGUMENT/MISSING_FIELD", { "a.x.z", "y" },
        steps('{"name":"a","call":"bad.id","args":[{"x":{"y":1}}]}',
          '{"name":"b","call":"bad.id","args":[{"$ref":"a.x.z"}]}'))
      assert.are.equal("b", err.step)
      assert.are.same({ "failed", "succeeded", "failed" },
        { run.status, run.steps[1].status, run.steps[2].status })
      graph(1, "INVALID_ARGUMENT/MISSING_FIELD", { "input.min" },
        steps '{"name":"a","call":"bad.id","args":[{"$ref":"input.min"}]}')
      graph(1, "INVALID_ARGUMENT/MISSING_FIELD", { "a[3]" },
        steps('{"name":"a","call":"bad.id","args":[[1,2]]}',
          '{"name":"b","call":"bad.id","args":[{"$ref":"a[3]"}]}'))
    end)

    it("fails each over what is no list, and tells which element failed", function()
      graph(1, "INVALID_ARGUMENT/NOT_A_LIST", {},
        steps('{"name":"a","call":"bad.id","args":[{"x":1}]}',
          '{"name":"b","call":"bad.id","each":{"$ref":"a"},"args":[{"$item":""}]}'))
      local err = graph(1, "UNKNOWN/FUNCTION_ERROR", { "again" },
        steps '{"name":"b","call":"bad.unknown","each":[1,2],"concurrency":1}')
      assert.are.same({ "b", 1 }, { err.step, err.index })
    end)

    it("fails steps by their own deadline", function()
      local err = graph(1, "DEADLINE_EXCEEDED/STEP_TIMEOUT", {},
        steps '{"name":"s","call":"mpreg.sleep","args":[30],"timeout_ms":50}')
      assert.are.equal("s", err.step)
    end)

    it("is refused in Lua with file and line", function()
      local path = write("p.lua", "local mpreg = require 'mpreg'\n"
        .. "return mpreg.pipeline('p', function(p, input)\n  return input.x + 1\nend)")
      refused(2, "INVALID_ARGUMENT/BAD_PIPELINE", { "p.lua:3", "input.x" }, "run", path)
      refused(2, "INVALID_ARGUMENT/BAD_PIPELINE", { "p.lua:3", "input.x" }, "plan", path)
    end)
  end)
end)
