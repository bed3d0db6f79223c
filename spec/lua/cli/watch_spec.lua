local client = require "mpreg.client"
local codec = require "mpreg.codec"
local commands = require "spec.support.commands"
local native = require "mpreg.native"
local watch = require "mpreg.cli.watch"

describe("cli.watch", function()
  local folder, jobs, w, lines, asked, answer

  local function sh(command) assert.equal(0, os.execute("cd " .. folder .. " && " .. command)) end
  local function write(name, text)
    local file = assert(io.open(folder .. "/" .. name, "w"))
    file:write(text or "return {}")
    file:close()
  end

  --- What a node says: every module of the unit is live.
  local function accept(what, query, payload)
    asked[#asked + 1] = what == "undeploy" and ("undeploy %s %s"):format(query.kind, query.module)
      or what
    if answer then return answer(what, query, payload) end
    local value = { ms = 1.5, nodes = { { node = "n1", state = "live" } }, modules = {} }
    if what == "undeploy" then
      value.modules[1] = { module = query.module, previous = "x" }
    else
      assert.is_true(query.force)
      for i, module in ipairs(payload) do
        value.modules[i] = { module = module[1], version = "0.0.0+" .. #module[2],
          kind = module[1] == "pipeline" and "pipeline" or "module", hash = "h" .. module[2] }
        if module[1] == "pipeline" then value.modules[i].module = "a" end
      end
    end
    return value
  end

  local function start(paths, query, is_json)
    w = watch.new(paths, {
      jobs = jobs, query = query,
      output = {
        json = is_json,
        write = function(_, line) lines[#lines + 1] = line:gsub("^%d%d:%d%d:%d%d  ", "") end,
        note = function(_, line) lines[#lines + 1] = line .. "\n" end,
        flush = function() end,
      },
      connect = function()
        local connect = native.connect
        native.connect = function() return commands.conn(accept) end
        local c = client.connect {}
        native.connect = connect
        return c
      end,
    })
    w:look()
  end

  --- Follows until there are so many lines, or nothing happens any more.
  local function follow(count)
    local deadline = native.now() + 5
    while native.now() < deadline do
      if count and #lines >= count then break end
      local event = jobs:wait(w:due() or 150)
      if event then
        w:take(event)
      elseif w:due() then
        if w:due() == 0 then w:look() end
      elseif not count then
        break
      end
    end
    local said = table.concat(lines)
    lines = {}
    return said
  end

  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
    jobs, lines, asked, answer = native.jobs(), {}, {}, nil
  end)
  after_each(function()
    jobs:close()
    os.execute("rm -rf " .. folder)
  end)

  it("deploys at once, then on each save", function()
    write "a.lua"
    start { folder }
    assert.equal("deployed a 0.0.0+9 · 1 node · 1.5 ms\n", follow(1))
    write("a.lua", "return { }")
    assert.equal("deployed a 0.0.0+10 · 1 node · 1.5 ms\n", follow(1))
    write "README.md"
    write ".a.lua"
    write "a_spec.lua"
    assert.equal("", follow())
  end)

  it("takes what is saved together for one deploy", function()
    write "a.lua"
    start { folder }
    follow(1)
    write "b.lua"
    write "c.lua"
    write "d.lua"
    assert.equal("deployed a 0.0.0+9, b 0.0.0+9, c 0.0.0+9, +1 · 1 node · 1.5 ms\n", follow())
    assert.same({ "deploy", "deploy" }, asked)
  end)

  it("follows editors that write a temporary file and rename it", function()
    write "a.lua"
    start { folder }
    follow(1)
    sh "echo 'return  {}' > .a.lua.swp && mv .a.lua.swp a.lua"
    assert.equal("deployed a 0.0.0+11 · 1 node · 1.5 ms\n", follow())
    sh "mv a.lua a.lua~ && echo 'return   {}' > a.lua && rm a.lua~"
    assert.equal("deployed a 0.0.0+12 · 1 node · 1.5 ms\n", follow())
  end)

  it("waits until a file is written", function()
    write "a.lua"
    start { folder }
    follow()
    local file = assert(io.open(folder .. "/b.lua", "w"))
    file:write("return")
    file:flush()
    assert.equal("", follow())
    file:write(" {}")
    file:close()
    assert.equal("deployed a 0.0.0+9, b 0.0.0+9 · 1 node · 1.5 ms\n", follow())
  end)

  it("finds new folders, and undeploys what is gone", function()
    write "a.lua"
    start { folder }
    follow(1)
    sh "mkdir -p geo/far && echo 'return {}' > geo/far/x.lua"
    assert.equal("deployed a 0.0.0+9, geo.far.x 0.0.0+10 · 1 node · 1.5 ms\n", follow())
    sh "echo 'return  {}' > geo/far/x.lua"
    assert.equal("deployed a 0.0.0+9, geo.far.x 0.0.0+11 · 1 node · 1.5 ms\n", follow())
    sh "rm -r geo"
    assert.equal("deployed a 0.0.0+9 · 1 node · 1.5 ms\nundeployed geo.far.x · 1 node · 1.5 ms\n",
      follow())
    sh "mv a.lua b.lua"
    assert.equal("deployed b 0.0.0+9 · 1 node · 1.5 ms\nundeployed a · 1 node · 1.5 ms\n", follow())
    sh "rm b.lua"
    assert.equal("undeployed b · 1 node · 1.5 ms\n", follow())
    write "c.lua"
    assert.equal("deployed c 0.0.0+9 · 1 node · 1.5 ms\n", follow())
  end)

  it("says only what is gone where the rest is unchanged, and that a folder is back", function()
    write "a.lua"
    write "b.lua"
    start { folder }
    follow(1)
    answer = function(what, query, payload)
      answer = nil
      local value = accept(what, query, payload)
      for _, module in ipairs(value.modules) do module.previous = module.hash end
      value.unchanged = true
      return value
    end
    local unchanged = answer
    sh "rm b.lua"
    assert.equal("undeployed b · 1 node · 1.5 ms\n", follow())
    assert.equal(0, os.execute(("mv %s %s.away"):format(folder, folder)))
    assert.truthy(follow(1):find("^error: INVALID_ARGUMENT/UNREADABLE: cannot read "))
    answer = unchanged
    assert.equal(0, os.execute(("mv %s.away %s"):format(folder, folder)))
    assert.equal("unchanged · 1 node · 1.5 ms\n", follow(1))
  end)

  it("tells a module from the pipeline of its name", function()
    write "a.lua"
    write "pipeline.lua"
    start { folder }
    follow(1)
    sh "rm pipeline.lua"
    follow()
    assert.same({ "deploy", "deploy", "undeploy pipeline a" }, asked)
  end)

  it("undeploys nothing if it is a trial on some nodes", function()
    write "a.lua"
    write "b.lua"
    start({ folder }, { only = { "n1" } })
    follow(1)
    sh "rm b.lua"
    assert.equal("deployed a 0.0.0+9 · 1 node · 1.5 ms\n"
      .. "b has no file any more, but stays live: mpreg undeploy b\n", follow())
    assert.same({ "deploy", "deploy" }, asked)
  end)

  it("goes on after a syntax error, and after what a node refuses", function()
    write "a.lua"
    start { folder }
    follow(1)
    write("a.lua", "return {\n = }")
    assert.equal("error: INVALID_ARGUMENT/SYNTAX_ERROR: a.lua:2: unexpected symbol near '=' · "
      .. "the old version stays\n", follow())
    write "a.lua"
    assert.equal("deployed a 0.0.0+9 · 1 node · 1.5 ms\n", follow())
    answer = function()
      return nil, { code = "INVALID_ARGUMENT", reason = "LOAD_ERROR", node = "n2",
        message = "a.lua:1: boom" }
    end
    write("a.lua", "error 'boom'")
    assert.equal("error: INVALID_ARGUMENT/LOAD_ERROR: a.lua:1: boom · on n2 · "
      .. "the old version stays\n", follow())
    answer = nil
    write "a.lua"
    assert.equal("deployed a 0.0.0+9 · 1 node · 1.5 ms\n", follow())
  end)

  it("tries again while nobody can be reached", function()
    write "a.lua"
    start { folder }
    follow(1)
    local fails = 2
    answer = function()
      fails = fails - 1
      if fails == 0 then answer = nil end
      return nil, { code = "UNAVAILABLE", reason = "NO_NODE", message = "no node answered" }
    end
    write("a.lua", "return { }")
    assert.equal("error: UNAVAILABLE/NO_NODE: no node answered · trying again\n"
      .. "deployed a 0.0.0+10 · 1 node · 1.5 ms\n", follow(2))
  end)

  it("waits for a first module, and for a folder that comes back", function()
    start { folder }
    assert.equal(("error: INVALID_ARGUMENT/EMPTY_UNIT: there is no module in %s · "
      .. "waiting for one\n"):format(folder), follow(1))
    write "a.lua"
    assert.equal("deployed a 0.0.0+9 · 1 node · 1.5 ms\n", follow(1))
    sh("mv " .. folder .. " " .. folder .. "-x")
    assert.truthy(follow(1):find("error: INVALID_ARGUMENT/UNREADABLE: cannot read", 1, true))
    os.rename(folder .. "-x", folder)
    write("a.lua", "return { }")
    assert.equal("deployed a 0.0.0+10 · 1 node · 1.5 ms\n", follow(1))
  end)

  it("watches single files, and nothing beside them", function()
    write "a.lua"
    write "b.lua"
    start { folder .. "/a.lua" }
    assert.equal("deployed a 0.0.0+9 · 1 node · 1.5 ms\n", follow(1))
    write "b.lua"
    write "c.lua"
    assert.equal("", follow())
    sh "echo 'return  {}' > x && mv x a.lua"
    assert.equal("deployed a 0.0.0+11 · 1 node · 1.5 ms\n", follow())
  end)

  it("says unchanged when a node does", function()
    write "a.lua"
    start { folder }
    follow(1)
    answer = function()
      return { unchanged = true, nodes = { { node = "n1", state = "live" },
        { node = "n2", state = "behind" } }, ms = 0.5,
        modules = { { module = "a", version = "1.0.0", hash = "x" } } }
    end
    write "a.lua"
    assert.equal("unchanged · 1 node, n2 behind · 0.5 ms\n", follow())
  end)

  it("prints an object a line with -o json", function()
    write "a.lua"
    start({ folder }, nil, true)
    write("a.lua", "return =")
    local said = follow()
    local first, second, rest = said:match("^([^\n]*)\n([^\n]*)\n(.*)$")
    assert.equal("a", codec.json_decode(first).modules[1].module)
    assert.equal("SYNTAX_ERROR", codec.json_decode(second).error.reason)
    assert.equal("", rest)
  end)
end)
