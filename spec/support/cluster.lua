--- Clusters of real nodes for functional specs: started in a shape, waited for, ended, with nothing
--- left behind.
---
---     local cluster = require "spec.support.cluster"
---     local c = cluster.start("line", { { modules = { "a" } }, { modules = { "b" } }, 3 })
---     c[1], c.n2                       -- nodes of spec.support.node; n1, n2 … by name
---     c:client(1)                      -- a connection of spec.support.client to the first
---     c:result(1, "b.add", { 1, 2 })   -- a call from there
---     c:close()                        -- for after_each or teardown
---
--- A node may have `modules` (names under which it loads fixtures/work.lua), `flags`, `workers`
--- (default 1), `sources` (module name → its text). Who joins whom:
---
---     line    each the one before it       star    each the first
---     ring    a line, and the last the first too
---     mesh    each all before it           tree    each the one at half its place

local client = require "spec.support.client"
local node = require "spec.support.node"
local uv = require "luv"

local M = {}

--- A sanitizer build is slower: bounds on time grow with it, and nothing else changes.
M.SLOW = os.getenv "MPREG_SANITIZED" and 10 or 1

-- Nobody waits for these when all is well.
local SETTLE_S = 30
local STOP_S = 30

local FIXTURE = "spec/functional/fixtures/work.lua"

local SEEDS = {
  line = function(i) return { i - 1 } end,
  star = function() return { 1 } end,
  ring = function(i, count) return i == count and i > 2 and { i - 1, 1 } or { i - 1 } end,
  mesh = function(i)
    local list = {}
    for k = 1, i - 1 do list[k] = k end
    return list
  end,
  tree = function(i) return { math.floor(i / 2) } end,
}

local Cluster = {}

function Cluster:__index(key)
  local place = type(key) == "string" and key:match "^n(%d+)$"
  if place then return rawget(self, tonumber(place)) end
  return Cluster[key]
end

local function write_file(path, text)
  local file = assert(io.open(path, "wb"))
  assert(file:write(text))
  file:close()
end

local function read_file(path)
  local file = assert(io.open(path, "rb"))
  local text = file:read "*a"
  file:close()
  return text
end

--- Removes a folder with the files and folders in it.
local function remove(path)
  local scan = uv.fs_scandir(path)
  while scan do
    local name, kind = uv.fs_scandir_next(scan)
    if not name then break end
    if kind == "directory" then remove(path .. "/" .. name) else os.remove(path .. "/" .. name) end
  end
  uv.fs_rmdir(path)
end

local function flags_of(self, i, def)
  local flags = { "--name", "n" .. i, "--workers", def.workers or 1, "--log-level", "warn" }
  local folder = ("%s/n%d"):format(self.folder, i)
  local sources = {}
  for _, name in ipairs(def.modules or {}) do sources[name] = read_file(FIXTURE) end
  for name, text in pairs(def.sources or {}) do sources[name] = text end
  if next(sources) then
    assert(uv.fs_mkdir(folder, tonumber("700", 8)))
    for name, text in pairs(sources) do write_file(("%s/%s.lua"):format(folder, name), text) end
    flags[#flags + 1], flags[#flags + 2] = "--load", folder
  end
  for _, flag in ipairs(def.flags or {}) do flags[#flags + 1] = flag end
  self.expected[i] = { mpreg = true } -- what each node has
  for name in pairs(sources) do self.expected[i][name] = true end
  return flags
end

local function with_seeds(self, i, seeds)
  local flags = { unpack(self.flags[i]) }
  for _, k in ipairs(seeds) do
    flags[#flags + 1], flags[#flags + 2] = "--join", self[k].addr
  end
  return flags
end

--- Launches one more node that joins those at the given places, and does not wait for it.
---@param def table  as for start
---@param seeds integer[]
---@return table node
function Cluster:launch(def, seeds)
  local i = #self + 1
  self.flags[i] = flags_of(self, i, def)
  self[i] = node.launch(with_seeds(self, i, seeds))
  return self[i]
end

--- Starts one more node and waits until it serves.
function Cluster:add(def, seeds) return self:launch(def, seeds):await() end

--- Starts a node that has ended again, under its name, on another port.
function Cluster:restart(i, seeds)
  self[i] = node.launch(with_seeds(self, i, seeds))
  return self[i]:await()
end

--- Starts a cluster and waits until each node knows all others and their modules.
---@param shape string  line, star, ring, mesh or tree
---@param defs table|integer  a list of nodes, or how many
---@param opts? table  unsettled: do not wait
---@return table cluster
function M.start(shape, defs, opts)
  if type(defs) == "number" then
    local count = defs
    defs = {}
    for i = 1, count do defs[i] = {} end
  end
  local self = setmetatable({ clients = {}, expected = {}, flags = {}, paths = 0 }, Cluster)
  self.folder = assert(uv.fs_mkdtemp((uv.os_tmpdir() or "/tmp") .. "/mpreg-spec-XXXXXX"))
  local ok, err = pcall(function()
    local awaited = 0
    for i = 1, #defs do
      local seeds = i > 1 and SEEDS[shape](i, #defs) or {}
      for _, k in ipairs(seeds) do
        while awaited < k do
          awaited = awaited + 1
          self[awaited]:await()
        end
      end
      self:launch(defs[i], seeds)
    end
    for i = awaited + 1, #defs do self[i]:await() end
    self.ready_at = uv.hrtime()
    if not (opts and opts.unsettled) then self:settle() end
  end)
  if not ok then
    self:destroy()
    error(err, 2)
  end
  return self
end

--- The connection to the node at that place, opened when it is first asked for.
function Cluster:client(i)
  if not self.clients[i] then self.clients[i] = client.connect(self[i]) end
  return self.clients[i]
end

--- Places of the nodes whose processes live.
function Cluster:living()
  local places = {}
  for i = 1, #self do
    if not self[i].code then places[#places + 1] = i end
  end
  return places
end

--- Asks all living nodes, or those at `places`, for a document at once: place → document.
function Cluster:ask_all(what, places)
  local requests, documents = {}, {}
  for _, i in ipairs(places or self:living()) do requests[i] = self:client(i):ask(what) end
  for i, request in pairs(requests) do documents[i] = self.clients[i]:result(request) end
  return documents
end

--- Asks again and again until the answer of each node satisfies, those that do are left alone.
function Cluster:await_all(what, satisfies, description, seconds)
  local left = self:living()
  local last
  local deadline = uv.hrtime() + (seconds or SETTLE_S) * 1e9
  while left[1] do
    local documents = self:ask_all(what, left)
    local now = {}
    for _, i in ipairs(left) do
      if not satisfies(documents[i], i) then now[#now + 1] = i end
    end
    left = now
    last = documents[left[1]]
    if left[1] and uv.hrtime() > deadline then
      error(("not within %g s: %s; n%d says %s"):format(seconds or SETTLE_S, description, left[1],
        assert(require "mpreg.codec".json_encode(last)):sub(1, 2000)), 2)
    end
  end
end

--- How many nodes a `nodes` document tells of, in that state (default alive).
function M.count(document, state)
  local count = 0
  for _, n in ipairs(document.nodes) do
    if n.state == (state or "alive") then count = count + 1 end
  end
  return count
end

--- Waits until each living node sees all of them alive, and no other one.
function Cluster:see_all(seconds)
  local count = #self:living()
  self:await_all("nodes", function(d) return M.count(d) == count end,
    ("%d nodes alive"):format(count), seconds)
end

--- Waits until each living node knows all others and the functions of `mpreg` and of our modules
--- that each has.
function Cluster:settle(seconds)
  self:see_all(seconds)
  local living = self:living()
  self:await_all("functions", function(document)
    local has = {}
    for _, f in ipairs(document.functions) do
      for _, name in ipairs(f.nodes) do has[name .. "/" .. f.module] = true end
    end
    for _, i in ipairs(living) do
      for name in pairs(self.expected[i]) do
        if not has[("n%d/%s"):format(i, name)] then return false end
      end
    end
    return true
  end, "all functions known", seconds)
end

--- Waits until the node at `from` says that the one at `place` is in that state.
function Cluster:await_state(from, place, state, seconds)
  local name = "n" .. place
  node.eventually(function()
    for _, n in ipairs(self:client(from):query("nodes").nodes) do
      if n.name == name then return n.state == state end
    end
    return false
  end, ("n%d sees %s %s"):format(from, name, state), seconds or SETTLE_S)
end

--- Waits until no node holds results for runs.
function Cluster:await_nothing_held(seconds)
  self:await_all("status", function(d) return d.held.count == 0 and d.held.bytes == 0 end,
    "nothing held", seconds or 10)
end

--- Waits until no worker has a call.
function Cluster:await_idle(seconds)
  self:await_all("status", function(d)
    for _, w in ipairs(d.workers) do
      if w.begun > 0 or w.queued > 0 then return false end
    end
    return d.queued == 0 and #d.workers > 0
  end, "no call in any worker", seconds or 20)
end

--- Calls from the node at that place; gives the result or raises the error.
function Cluster:result(i, fun, args, opts)
  local c = self:client(i)
  return c:result(c:call(fun, args, opts))
end

--- Calls and gives the request when it is answered.
function Cluster:answer(i, fun, args, opts)
  local c = self:client(i)
  return c:wait(c:call(fun, args, opts))
end

--- Runs a graph from the node at that place and gives the run; an ERROR instead of one is raised.
function Cluster:run(i, graph, opts)
  local c = self:client(i)
  return c:result(c:run(graph, opts))
end

--- A path for a file that goes when the cluster does.
function Cluster:path()
  self.paths = self.paths + 1
  return ("%s/file%d"):format(self.folder, self.paths)
end

--- The lines of a file; none if there is no file.
function M.lines(path)
  local list = {}
  local file = io.open(path)
  if file then
    for line in file:lines() do list[#list + 1] = line end
    file:close()
  end
  return list
end

--- Waits for so many lines in a file, and gives them.
function M.await_lines(path, count, seconds)
  local list
  node.eventually(function()
    list = M.lines(path)
    return #list >= (count or 1)
  end, ("%d lines in %s"):format(count or 1, path), seconds or 30)
  return list
end

--- Lets functions that hold at a path go on.
function M.let_go(path) write_file(path .. ".go", "") end

--- kill -9 of the node at that place; waits for its end.
function Cluster:kill(i)
  if self.clients[i] then
    self.clients[i]:close()
    self.clients[i] = nil
  end
  self[i]:kill "sigkill"
  self[i]:wait(STOP_S)
end

--- Ends all at once with SIGTERM; asserts that each exits with 0 and leaves no process.
function Cluster:stop()
  for i, c in pairs(self.clients) do
    c:close()
    self.clients[i] = nil
  end
  local living = self:living()
  for _, i in ipairs(living) do self[i]:tell_to_stop() end
  for _, i in ipairs(living) do self[i]:stop() end
end

--- Ends all that still runs, whatever it does, and removes the files.
function Cluster:destroy()
  for _, c in pairs(self.clients) do c:close() end
  self.clients = {}
  for i = 1, #self do self[i]:destroy() end
  remove(self.folder)
end

--- For after_each or teardown: stops, then makes sure.
function Cluster:close()
  local ok, err = pcall(self.stop, self)
  self:destroy()
  if not ok then error(err, 0) end
end

return M
