--- What specs about a node under misbehaving functions share: a node, a connection to it, a file in
--- which functions leave marks, and bounds on time.
---
---     local scene = require "spec.support.scene"
---     before_each(function() s = scene.open() end)
---     after_each(function() s:close() end)
---     s:start(2, "--worker-memory", "64M")     -- s.n the node, s.c a client

local client = require "spec.support.client"
local node = require "spec.support.node"
local processors = require "spec.support.processors"

local M = {}

--- A sanitizer build is slower: bounds on time grow with it, and nothing else changes.
M.SLOW = os.getenv "MPREG_SANITIZED" and 10 or 1
M.ANSWER_MS = 20 * M.SLOW -- an answer comes so long after a deadline at most
M.SERVING_MS = 100 * M.SLOW -- from then on a new worker serves
M.EVIL = "spec/functional/fixtures/evil.lua"

--- Whether a text tells of a write to address 0: by its signal, or, where a sanitizer that handles
--- signals was faster, by the status that it exits with.
function M.tells_crash(text)
  return text:find("signal 11", 1, true) ~= nil
    or (M.SLOW ~= 1 and text:find("exit status", 1, true) ~= nil)
end

local Scene = {}
Scene.__index = Scene

function M.open()
  return setmetatable({ path = os.tmpname() }, Scene)
end

--- Starts a node with so many workers, the evil functions and more flags, and connects to it; one
--- that runs already is stopped before.
function Scene:start(workers, ...)
  if self.n then
    self.c:close()
    self.n:stop()
  end
  self.n = node.start { "--workers", workers, "--load", M.EVIL, ... }
  self.c = client.connect(self.n)
end

--- Closes the connection and opens another one.
function Scene:reconnect()
  self.c:close()
  self.c = client.connect(self.n)
end

--- Ends everything; asserts that the node ended well.
function Scene:close()
  if self.c then self.c:close() end
  local ok, err = true, nil
  if self.n and not self.n.code then ok, err = pcall(self.n.stop, self.n) end
  node.stop_all()
  for _, suffix in ipairs { "", ".lock", ".ended", ".held" } do os.remove(self.path .. suffix) end
  assert(ok, err)
end

--- How many marks functions have left (in the file with that suffix).
function Scene:marks(suffix) return node.marks(self.path .. (suffix or "")) end

--- Waits for so many marks (default 1).
function Scene:await_marks(count, suffix)
  node.eventually(function() return self:marks(suffix) >= (count or 1) end,
    ("%d marks, there are %d"):format(count or 1, self:marks(suffix)))
end

--- Waits for a request (or a list), and expects that error, or "a result".
function Scene:expect(code, what)
  self.c:wait(what)
  for _, request in ipairs(what.sent and { what } or what) do
    if (request.code or "a result") ~= code then
      error(("expected %s, got %s: %s"):format(code, request.code or "a result",
        tostring(request.error and request.error.message)), 2)
    end
  end
  return what
end

--- A function that tells how many milliseconds others took since this call from this process and
--- the node's that live then: each waited for a processor, or had one that went to another machine.
function Scene:stolen_from_now()
  local function delays()
    local list = { self = processors.run_delay_ms "self",
      [self.n.pid] = processors.run_delay_ms(self.n.pid) }
    for _, pid in ipairs(self.n:workers()) do list[pid] = processors.run_delay_ms(pid) end
    return list
  end
  local before, stolen = delays(), processors.stolen_from_now()
  return function()
    local _, sum = stolen()
    for pid, delay in pairs(delays()) do sum = sum + delay - (before[pid] or 0) end
    return sum
  end
end

--- Waits for one request and asserts that it was answered at most so many milliseconds after
--- `from` (after it was sent; default 0), without what others took.
function Scene:answered_within(ms, request, from)
  local stolen_ms = self:stolen_from_now()
  self.c:wait(request)
  local late = request.ms - (from or 0)
  local stolen = stolen_ms()
  if late - stolen > ms then
    error(("answered %.1f ms late, %.1f ms of it taken by others; at most %g ms are allowed")
      :format(late, stolen, ms), 2)
  end
  return request
end

--- Calls `fun` so many times at once.
function Scene:calls(count, fun, args, opts)
  local list = {}
  for i = 1, count do list[i] = self.c:call(fun, args, opts) end
  return list
end

return M
