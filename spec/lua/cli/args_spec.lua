local args = require "mpreg.cli.args"

describe("cli.args", function()
  local command = {
    name = "demo", usage = "FUN [ARG…] [flags]", summary = "Demo.", examples = "  mpreg demo x",
    arguments = { { "FUN", "What." }, { "ARG", "With what.", count = "*" } },
    flags = {
      { "--need", "RESOURCE", "Needs.", many = true },
      { "--retries", "N", "Again.", type = args.integer(0, 10) },
      { "--log-level", "LEVEL", "Level.", type = args.choice { "info", "debug" } },
      { "--wait", false, "Wait." },
      args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
    },
  }

  local function parse(...) return args.parse(command, { ... }) end

  local function refused(pattern, ...)
    local options, err = parse(...)
    assert.is_nil(options)
    assert.are.equal("INVALID_ARGUMENT", err.code)
    assert.are.equal("USAGE", err.reason)
    local text = err.message .. "\n" .. (err.hint or "")
    assert.is_truthy(text:find(pattern, 1, true), ("'%s' in '%s'"):format(pattern, text))
  end

  it("takes flags anywhere", function()
    local expected = { FUN = "f", ARG = { "1", "2" }, timeout = 5000, wait = true,
      need = { "a", "b" } }
    assert.are.same(expected, parse("f", "1", "2", "-t", "5s", "--wait", "--need", "a", "--need",
      "b"))
    assert.are.same(expected, parse("-t5s", "--wait", "f", "--need=a", "1", "--need", "b", "2"))
    assert.are.same(expected, parse("--need", "a", "f", "1", "--timeout=5s", "2", "--wait",
      "--need=b"))
  end)

  it("ends flags at --", function()
    assert.are.same({ "-x", "--wait", "--", "--help" },
      parse("f", "--", "-x", "--wait", "--", "--help").ARG)
  end)

  it("takes what looks like a number for an argument, and a lone - too", function()
    assert.are.same({ "-1", "-.5e3", "-0", "-", "-12.25", "-1e-3" },
      parse("f", "-1", "-.5e3", "-0", "-", "-12.25", "-1e-3").ARG)
    refused("unknown flag '-1'", "f", "-1x")
    assert.are.same({ "-1" }, parse("f", "-n", "a:1", "-1").ARG)
    refused("-1 is out of range", "f", "--retries", "-1")
  end)

  it("refuses a flag given twice, unless it is repeatable", function()
    refused("flag '-t' is given twice", "f", "-t", "1s", "-t", "2s")
    refused("flag '--timeout' is given twice", "f", "-t", "1s", "--timeout", "2s")
    refused("flag '--wait' is given twice", "f", "--wait", "--wait")
    assert.are.same({ "a:1", "b:2" }, parse("f", "-n", "a:1", "--node", "b:2").node)
  end)

  it("names the nearest flag", function()
    refused("did you mean --timeout?", "f", "--timeot", "1s")
    refused("did you mean --need?", "f", "--nede=x")
    refused("unknown flag '-z'", "f", "-z")
    refused("unknown flag '--" .. ("x"):rep(38), "f", "--" .. ("x"):rep(1e6))
  end)

  it("says what is missing or too much", function()
    refused("missing argument 'FUN'")
    refused("flag '-t' needs a value: 5s", "f", "-t")
    refused("flag '--timeout' needs a value: 5s", "f", "--timeout", "--wait")
    refused("flag '-n' needs a value", "f", "-n", "--", "a:1")
    refused("flag '--wait' takes no value", "f", "--wait=1")
    local options, err = args.parse({ name = "n", usage = "", summary = "", examples = "",
      flags = { args.HELP } }, { "x" })
    assert.is_nil(options)
    assert.are.equal("too many arguments: 'x'", err.message)
  end)

  it("checks values", function()
    refused("--timeout: 'soon' is no duration", "f", "-t", "soon")
    refused("--timeout: '0s' leaves no time at all", "f", "-t", "0s")
    refused("--retries: 'x' is no whole number", "f", "--retries", "x")
    refused("--retries: 11 is out of range: from 0 to 10", "f", "--retries", "11")
    refused("--log-level: 'inof' is none of info, debug, did you mean 'info'?", "f", "--log-level",
      "inof")
    refused("--output: 'yaml' is none of json, text", "f", "-o", "yaml")
    for _, node in ipairs { "localhost", "a:b", "a:70000", ":1", "a:", "a b:1", "http://a:1" } do
      refused("is no HOST:PORT", "f", "-n", node)
    end
    assert.are.same({ "[::1]:7400", "host.example:1" },
      parse("f", "-n", "[::1]:7400", "-n", "host.example:1").node)
  end)

  it("reads short flags with their value in one word, and several in one", function()
    local letters = { name = "n", usage = "", summary = "", examples = "", flags = {
      { "-a --all", false, "" }, { "-b --both", false, "" }, { "-c --count", "N", "" } } }
    assert.are.same({ all = true, both = true, count = "5" }, args.parse(letters, { "-abc5" }))
    assert.are.same({ all = true, count = "-5" }, args.parse(letters, { "-ac", "-5" }))
    assert.are.same({ count = "" }, args.parse(letters, { "--count=" }))
    assert.are.same({ count = "a=b" }, args.parse(letters, { "--count=a=b" }))
    local _, err = args.parse(letters, { "-axb" })
    assert.are.equal("unknown flag '-x'", err.message)
    _, err = args.parse(letters, { "-aba" })
    assert.are.equal("flag '-a' is given twice", err.message)
  end)

  it("leaves out what was not given", function()
    assert.are.same({ FUN = "f", ARG = {} }, parse("f"))
  end)

  it("gives help whatever else is wrong", function()
    assert.are.same({ help = true }, parse("-h"))
    assert.are.same({ help = true }, parse("--nonsense", "--help"))
  end)

  it("writes help that lines up", function()
    assert.are.equal([[
Usage: mpreg demo FUN [ARG…] [flags]

Demo.

Arguments:
  FUN                       What.
  ARG                       With what.

Flags:
      --need RESOURCE       Needs.
      --retries N           Again.
      --log-level LEVEL     Level.
      --wait                Wait.
  -t, --timeout 5s          Deadline of the whole request (units ms s m h).
  -n, --node HOST:PORT      A node to ask; repeatable, tried in turn. Else $MPREG_NODE, else
                            127.0.0.1:7400.
  -o, --output json|text    One JSON document on stdout, or text for people.
  -h, --help                Show this help.

Example:
  mpreg demo x
]], args.help(command))
  end)

  describe("since", function()
    local NOW = 1769860800 -- 2026-01-31T12:00:00Z
    local function since(text) return args.since(text, NOW) end

    it("takes how long ago", function()
      assert.are.same({ 500, 5000, 300000, 7200000, 172800000, 43200000 }, {
        since "500ms", since "5s", since "5m", since "2h", since "2d",
        since "0.5d" })
    end)

    it("takes a time, of which a clock of seconds may give a second more", function()
      assert.are.equal(1000, since "2026-01-31T12:00:00Z")
      assert.are.equal(61000, since "2026-01-31T11:59:00Z")
      assert.are.equal(61000, since "2026-01-31 11:59Z")
      assert.are.equal(750, since "2026-01-31T12:00:00.25Z")
      assert.are.equal(1000, since "2026-01-31T13:00:00+01:00")
      assert.are.equal(1000, since "2026-01-31T06:30:00-0530")
      assert.are.equal(43201000, since "2026-01-31T00:00:00Z")
      assert.are.equal((366 + 30) * 86400000 + 43201000, since "2024-12-31T00:00:00Z")
      assert.are.equal(2000, since "1769860799000")
      local local_time = os.date("%Y-%m-%dT%H:%M:%S", 1769860790)
      assert.are.equal(11000, since(local_time))
    end)

    it("takes a time in the future as this moment", function()
      assert.are.equal(1, since "2030-01-01T00:00:00Z")
    end)

    it("says what it cannot read", function()
      for _, text in ipairs { "", "soon", "5", "5w", "2026-13-01", "2026-01-31T25:00",
        "2026-01-31T", "2026-01-31T12:00:00X", "-5m" } do
        local ms, problem = since(text)
        assert.is_nil(ms, text)
        assert.is_truthy(problem:find("is neither how long ago", 1, true), problem)
      end
      assert.is_truthy(select(2, since "400d"):find("longer than 366 days", 1, true))
    end)
  end)

  it("tells what is no topic", function()
    assert.is_nil(args.topic_fault "quakes.chile.strong")
    assert.is_nil(args.topic_fault("quakes.#.*", true))
    for _, text in ipairs { "", "a..b", "a.*", "#", "a b", ("x"):rep(65),
      ("x."):rep(999) .. "x" } do
      local err = args.topic_fault(text)
      assert.are.same({ "INVALID_ARGUMENT", "BAD_TOPIC" }, { err.code, err.reason })
    end
    assert.are.equal("BAD_TOPIC", args.topic_fault("a.b*", true).reason)
  end)
end)
