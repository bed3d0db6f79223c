local native = require "mpreg.native"

local SIGTERM, SIGKILL = 15, 9

describe("native.jobs", function()
  local folder, jobs
  local function sh(command) assert.equal(0, os.execute("cd " .. folder .. " && " .. command)) end
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(os.execute("mkdir " .. folder) == 0)
    jobs = native.jobs()
  end)
  after_each(function()
    jobs:close()
    os.execute("rm -rf " .. folder)
  end)

  --- The next event, as a text.
  local function next_event()
    local e = jobs:wait(5000)
    if not e then return "nothing" end
    return e.name and ("%s %s"):format(e.kind, e.name) or e.kind
  end

  it("says when nothing happens in time", function()
    local started = native.now()
    assert.is_nil(jobs:wait(0))
    assert.is_nil(jobs:wait(1))
    assert.is_nil(jobs:wait(20))
    assert.is_true(native.now() - started >= 0.02)
    assert.is_false(pcall(jobs.wait, jobs, -1))
  end)

  it("tells of files that are saved, renamed and gone, and of folders", function()
    local number = assert(jobs:watch(folder))
    assert.equal(number, jobs:watch(folder .. "/"))
    sh "echo x > a.lua"
    assert.equal("made a.lua", next_event())
    assert.equal("saved a.lua", next_event())
    sh "echo y > a.tmp && mv a.tmp a.lua"
    assert.equal("made a.tmp", next_event())
    assert.equal("saved a.tmp", next_event())
    assert.equal("gone a.tmp", next_event())
    assert.equal("saved a.lua", next_event())
    sh "rm a.lua && mkdir sub && ln -s x y"
    assert.equal("gone a.lua", next_event())
    assert.equal("made sub", next_event())
    assert.equal("made y", next_event())
    assert.is_nil(jobs:wait(20))
  end)

  it("tells of a folder that is gone, and watches what comes in its place", function()
    sh "mkdir sub"
    local number = assert(jobs:watch(folder .. "/sub"))
    sh "mv sub other"
    local event = jobs:wait(5000)
    assert.same({ kind = "lost", watch = number }, event)
    sh "touch other/x && mkdir sub"
    assert.is_nil(jobs:wait(20))
    assert.is_true(jobs:watch(folder .. "/sub") ~= number)
    local watch, problem = jobs:watch(folder .. "/none")
    assert.same({ nil, "No such file or directory" }, { watch, problem })
  end)

  it("starts programs, and tells what they write and how they end", function()
    local pid = assert(jobs:start { "/bin/sh", "-c", "echo out; echo err >&2; exit 3" })
    local out, err = "", ""
    while true do
      local e = assert(jobs:wait(5000))
      assert.equal(pid, e.pid)
      if e.kind == "ended" then
        assert.same({ 3, 0 }, { e.code, e.signal })
        break
      end
      if e.is_error then err = err .. e.text else out = out .. e.text end
    end
    assert.same({ "out\n", "err\n" }, { out, err })
    local none, problem = jobs:start { folder .. "/none" }
    assert.same({ nil, "no such file or directory" }, { none, problem })
    assert.is_false(pcall(jobs.start, jobs, {}))
    assert.is_nil(jobs:wait(20))
  end)

  it("sends signals to its own programs alone", function()
    local pid = assert(jobs:start { "/bin/sleep", "60" })
    jobs:signal(pid + 1, SIGKILL)
    jobs:signal(native.pid(), SIGKILL)
    jobs:signal(pid, SIGTERM)
    assert.same({ kind = "ended", pid = pid, code = 0, signal = SIGTERM }, jobs:wait(5000))
    jobs:signal(pid, SIGTERM)
  end)

  it("tells of signals, one by one", function()
    for _, number in ipairs { 2, SIGTERM, 1 } do
      assert(jobs:start { "/bin/kill", "-" .. number, tostring(native.pid()) })
      local told = {}
      for _ = 1, 2 do
        local event = jobs:wait(5000)
        told[event.kind] = event
      end
      assert.equal(number, told.signal.number)
      assert.equal(0, told.ended.code)
    end
  end)

  it("lets go of programs that still run", function()
    local pid = assert(jobs:start { "/bin/sleep", "0.2" })
    jobs:close()
    jobs:close()
    assert.is_false(pcall(jobs.signal, jobs, pid, SIGTERM))
    assert.equal(0, os.execute("kill -0 " .. pid))
    os.execute("kill " .. pid)
  end)
end)
