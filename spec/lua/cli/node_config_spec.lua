local codec = require "mpreg.codec"
local config = require "mpreg.cli.node_config"

describe("cli.node_config", function()
  local path

  before_each(function() path = os.tmpname() end)
  after_each(function() os.remove(path) end)

  local function write(text)
    local file = assert(io.open(path, "w"))
    file:write(text)
    file:close()
    return path
  end

  local function faults_of(options)
    local result, err = config.read(options)
    assert.is_nil(result)
    assert.are.equal("INVALID_ARGUMENT", err.code)
    local list = {}
    for i, fault in ipairs(err.faults or { err }) do
      list[i] = fault.reason .. " " .. fault.message:gsub(path, "FILE", 1)
    end
    return list, err
  end

  it("has defaults for everything", function()
    local c = config.read {}
    assert.is_truthy(c.name:find("^[%w_][%w_-]*%-%x%x%x%x$"), c.name)
    c.name = nil
    assert.are.same({
      cluster = "default", listen = { host = "127.0.0.1", port = 7400 }, insecure = false,
      resources = {}, load = {}, join = {}, call_timeout_ms = 30000, run_timeout_ms = 3600000,
      worker_memory = 2 ^ 28, value_max = 2 ^ 26, calls_begun_max = 4096,
      calls_queued_max = 65536, call_depth_max = 32, graph_steps_max = 100000, runs_kept = 1000,
      runs_kept_bytes = 2 ^ 28, runs_kept_age_ms = 604800000, drain_ms = 10000,
      log_level = "info", log_format = "text",
    }, c)
  end)

  it("reads flags", function()
    local c = config.read {
      name = "n1", cluster = "eu", listen = "[::1]:0", resource = { "gpu", 'data={"path":"x=y"}' },
      load = { "examples/hello" }, workers = "3", call_timeout = "5s", worker_memory = "64M",
      drain = "0s", log_level = "debug",
    }
    assert.are.equal("n1", c.name)
    assert.are.same({ host = "::1", port = 0 }, c.listen)
    assert.are.same({ "examples/hello" }, c.load)
    assert.are.equal(true, c.resources.gpu)
    assert.are.same({ path = "x=y" }, codec.decode(c.resources.data))
    assert.are.same({ 3, 5000, 2 ^ 26, 0, "debug" },
      { c.workers, c.call_timeout_ms, c.worker_memory, c.drain_ms, c.log_level })
  end)

  it("reads a file, and flags win over it", function()
    write [[
      return {
        name = "file", cluster = "eu", ["log-level"] = "warn", log_format = "json", workers = 2,
        resource = { gpu = true, data = { path = "x", list = { 1, 2 } } }, load = "examples/hello",
        worker_memory = 2 ^ 27, run_timeout = "5m",
      }
    ]]
    local c = config.read { config = path, name = "flag", workers = "4" }
    assert.are.same({ "flag", "eu", "warn", "json", 4, 2 ^ 27, 300000 }, { c.name, c.cluster,
      c.log_level, c.log_format, c.workers, c.worker_memory, c.run_timeout_ms })
    assert.are.equal(true, c.resources.gpu)
    assert.are.same({ path = "x", list = { 1, 2 } }, codec.decode(c.resources.data))
    assert.are.same({ "examples/hello" }, c.load)
  end)

  it("names all that is wrong in a file at once, with file and key", function()
    write [[
      return {
        workres = 2, workers = "many", call_timeout = 5, value_max = "1T", call_depth_max = 0,
        name = "a b", listen = 7400, load = { "no/such/folder" }, insecure = "yes", [1] = "x",
        log_level = "loud", resource = { ["a b"] = 1 }, drain = "1 day",
      }
    ]]
    local list, err = faults_of { config = path }
    assert.are.same({
      "UNKNOWN_KEY FILE: 1: unknown key",
      "OUT_OF_RANGE FILE: call_depth_max: 0 is out of range: from 1 to 256",
      "WRONG_TYPE FILE: call_timeout: must be a duration such as \"30s\", not a number",
      "WRONG_TYPE FILE: drain: '1 day' is no duration: write a number "
        .. "and ms, s, m, h or d, such as 5s",
      "WRONG_TYPE FILE: insecure: must be true or false, not a string",
      "WRONG_TYPE FILE: listen: must be a text \"HOST:PORT\", not a number",
      "OUT_OF_RANGE FILE: load: there is no no/such/folder",
      "OUT_OF_RANGE FILE: log_level: 'loud' is none of debug, info, warn, error",
      "OUT_OF_RANGE FILE: name: 'a b' is no name: use up to 64 letters, digits, _ and -",
      "OUT_OF_RANGE FILE: resource: 'a b' is no name: use up to 64 letters, digits, _ and -",
      "WRONG_TYPE FILE: value_max: '1T' is no size: write a number and K, M or G, such as 256M",
      "WRONG_TYPE FILE: workers: 'many' is no whole number",
      "UNKNOWN_KEY FILE: workres: unknown key",
    }, list)
    assert.are.equal("UNKNOWN_KEY", err.reason)
    assert.are.equal("did you mean workers?", err.faults[13].hint)
  end)

  it("names a file that is no table, does not run, or is not there", function()
    assert.are.same({ "BAD_CONFIG FILE returns a nil, not a table of keys" },
      (faults_of { config = write "" }))
    local list = faults_of { config = write "return {\n  name = = 1 }" }
    assert.is_truthy(list[1]:find("FILE:2: unexpected symbol", 1, true), list[1])
    list = faults_of { config = write "error 'no'" }
    assert.is_truthy(list[1]:find("FILE:1: no", 1, true), list[1])
    list = faults_of { config = "no/such/file.lua" }
    assert.are.same({ "UNREADABLE cannot read no/such/file.lua: No such file or directory" }, list)
  end)

  it("refuses to listen beyond this machine, unless told that it may", function()
    for _, address in ipairs { "0.0.0.0:7400", "192.168.1.1:0", "[::]:7400", "example.org:1",
      "127.0.0.1.evil.org:1" } do
      local list, err = faults_of { listen = address, name = "n", advertise = "192.168.1.1:0" }
      assert.are.same({ ("INSECURE listen: %s is reachable from other machines, and this node has "
        .. "no keys to tell friend from foe"):format(address) }, list)
      assert.is_truthy(err.hint:find("--insecure", 1, true))
      assert.is_true(config.read { listen = address, insecure = true,
        advertise = "192.168.1.1:0" }.insecure)
    end
    for _, address in ipairs { "127.0.0.1:1", "127.8.9.1:1", "localhost:0", "[::1]:5" } do
      assert.is_truthy(config.read { listen = address })
    end
  end)

  it("wants to know how others reach a node that listens anywhere", function()
    for _, address in ipairs { "0.0.0.0:7400", "[::]:7400", "[0:0:0:0:0:0:0:0]:7400", "0:7400" } do
      local list, err = faults_of { listen = address, insecure = true }
      assert.are.same({ ("OUT_OF_RANGE listen: other nodes cannot reach a node at %s, which stands "
        .. "for any address"):format(address) }, list)
      assert.are.equal("name an address of this machine that they reach: --advertise "
        .. "192.0.2.1:7400", err.hint)
      local c = config.read { listen = address, insecure = true, advertise = "n1.example.org:0" }
      assert.are.same({ host = "n1.example.org", port = 0 }, c.advertise)
    end
    for _, address in ipairs { "192.168.1.1:0", "[::1]:5", "[fe80::]:5" } do
      assert.is_nil(config.read { listen = address, insecure = true }.advertise)
    end
  end)

  it("reads who to join, from flags and from a file", function()
    assert.are.same({ { host = "127.0.0.1", port = 7400 }, { host = "::1", port = 1 },
      { host = "seed.example.org", port = 65535 } },
      config.read { join = { "127.0.0.1:7400", "[::1]:1", "seed.example.org:65535" } }.join)
    write [[return { join = "seed:1", advertise = "[2001:db8::1]:7", data = "no/such/folder/yet" }]]
    local c = config.read { config = path }
    assert.are.same({ { { host = "seed", port = 1 } }, { host = "2001:db8::1", port = 7 },
      "no/such/folder/yet" }, { c.join, c.advertise, c.data })
    assert.are.same({ { host = "other", port = 2 } },
      config.read { config = path, join = { "other:2" } }.join)
  end)

  it("refuses seeds and addresses that nobody could reach", function()
    write [[return { join = { "seed:1", "seed:0" }, advertise = "0.0.0.0:7400", data = 7 }]]
    assert.are.same({
      "OUT_OF_RANGE FILE: advertise: 0.0.0.0:7400 is no address that anybody could reach",
      "WRONG_TYPE FILE: data: must be a path, not a number",
      "OUT_OF_RANGE FILE: join: seed:0: port 0 is no port of a node",
    }, (faults_of { config = path }))
    write [[return { join = { seed = "seed:1" }, data = "" }]]
    assert.are.same({
      "OUT_OF_RANGE FILE: data: the path is empty",
      "WRONG_TYPE FILE: join: must be a list of HOST:PORT, not a table",
    }, (faults_of { config = path }))
    assert.are.same({
      "OUT_OF_RANGE --join: 'seed' is no HOST:PORT, such as 127.0.0.1:7400",
      "OUT_OF_RANGE --data: README.md is no folder",
    }, (faults_of { join = { "seed" }, data = "README.md" }))
    local many = {}
    for i = 1, 65 do many[i] = "seed:" .. i end
    assert.are.same({ "OUT_OF_RANGE --join: 65 of them, at most 64: one that is up suffices" },
      (faults_of { join = many }))
    many[65] = nil
    assert.are.equal(64, #config.read { join = many }.join)
  end)

  it("checks resources", function()
    assert.are.same({ "OUT_OF_RANGE --resource: resource a is given twice" },
      (faults_of { resource = { "a", "a=1" } }))
    local list = faults_of { resource = { "a={" } }
    assert.is_truthy(list[1]:find("BAD_JSON --resource: the JSON of resource a", 1, true), list[1])
    list = faults_of { config = write "return { resource = { f = print } }" }
    assert.are.same({ "WRONG_TYPE FILE: resource: f: a function cannot be sent" }, list)
  end)

  it("refuses resources that no message to a worker could hold", function()
    write [[return { resource = { a = ("x"):rep(2 ^ 17) } }]]
    assert.is_truthy(config.read { config = path })
    assert.are.same({
      "OUT_OF_RANGE FILE: resource: the values take 262154 bytes, together at most 256K: put large "
        .. "data in a file and its path in the value",
    }, (faults_of { config = write [[
      return { resource = { a = ("x"):rep(2 ^ 17), b = ("x"):rep(2 ^ 17), c = true } }
    ]] }))
  end)

  it("leaves no global behind from a file", function()
    config.read { config = write "leak_of_config = 1 return {}" }
    assert.is_nil(rawget(_G, "leak_of_config"))
  end)
end)
