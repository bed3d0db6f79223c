-- docs/tutorial.md as it is written: its commands go into one shell, one block after the other, and
-- print what stands below them. Times, people and machines are others each time.

local node = require "spec.support.node"
local uv = require "luv"

local SECONDS = 40

--- The blocks of a page, in their order: { commands, output }; a block without output prints
--- nothing.
local function blocks_of(path)
  local file = assert(io.open(path))
  local page = file:read("*a")
  file:close()
  local blocks = {}
  for language, text in ("\n" .. page):gmatch("\n```(%l*)\n(.-)\n```") do
    if language == "sh" then
      blocks[#blocks + 1] = { text, "" }
    else
      assert(language == "" and #blocks > 0, "a block that is neither commands nor their output")
      blocks[#blocks][2] = text
    end
  end
  return blocks
end

--- Ports that nobody has, instead of 7400, 7401 …
local function free_ports(count)
  local held, ports = {}, {}
  for i = 1, count do
    held[i] = uv.new_tcp()
    assert(held[i]:bind("127.0.0.1", 0))
    ports[i] = held[i]:getsockname().port
  end
  for i = 1, count do held[i]:close() end
  uv.run("nowait")
  return ports
end

local function normal(text)
  text = text:gsub("%d%d%d%d%-%d%d%-%d%dT%d%d:%d%d:%d%d", "MOMENT"):gsub("%f[%d]%d%d:%d%d:%d%d",
    "TIME"):gsub("%d+%.?%d* m?s%f[%s%z]", "DURATION"):gsub("%f[%S]%S+@%S+", "SOMEBODY")
  return (text:gsub(" +", " "):gsub(" +\n", "\n"):gsub("%s+$", ""))
end

describe("docs/tutorial.md", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(uv.fs_mkdir(folder, tonumber("700", 8)))
  end)
  after_each(function()
    node.stop_all()
    os.execute("rm -r " .. folder)
  end)

  it("is what happens", function()
    local blocks = blocks_of "docs/tutorial.md"
    assert.is_true(#blocks > 5)
    local ports = free_ports(3)
    local script = { "trap 'kill $(jobs -p) 2>/dev/null' EXIT" }
    for i, block in ipairs(blocks) do
      -- The first node would take 7400 by itself.
      script[#script + 1] = block[1]:gsub("%-%-name n1", "%0 --listen 127.0.0.1:7400")
        :gsub("127%.0%.0%.1:740(%d)", function(digit) return "127.0.0.1:" .. ports[digit + 1] end)
      script[#script + 1] = ("echo '-- %d --'"):format(i)
    end
    local shell = node.spawn("bash", { "-c", "exec 2>&1\n" .. table.concat(script, "\n") }, {
      env = {
        PATH = node.bin():match("^(.*)/") .. ":" .. os.getenv "PATH", TMPDIR = folder,
        MPREG_NODE = "127.0.0.1:" .. ports[1], TZ = false,
      },
    })
    local r = shell:wait(SECONDS)
    local at = 1
    for i, block in ipairs(blocks) do
      local mark = ("-- %d --\n"):format(i)
      local from, to = r.out:find(mark, at, true)
      assert(from, ("block %d did not end:\n%s"):format(i, r.out:sub(at)))
      local printed = r.out:sub(at, from - 1):gsub("127%.0%.0%.1:(%d+)", function(port)
        for k, p in ipairs(ports) do
          if tostring(p) == port then return "127.0.0.1:740" .. k - 1 end
        end
      end)
      assert.are.equal(normal(block[2]), normal(printed), "block " .. i .. ": " .. block[1])
      at = to + 1
    end
    assert.are.equal(0, r.code)
    node.eventually(function() return #shell:descendants() == 0 end, "the end of all nodes")
  end)
end)
