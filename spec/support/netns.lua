--- Network namespaces for functional specs: real nodes on machines that can be cut from each other.
--- A bridge in a namespace of its own joins them, so nothing of the machine's own network changes,
--- and removing the namespaces removes everything.
---
---     local netns = require "spec.support.netns"
---
---     local net = netns.open { "a", "b", "c" }            -- 10.77.0.1, .2, .3
---     local n = net:start("a", { "--join", net:at "b" })  -- a node of spec.support.node, named a
---     net:cut("a", "c")                                   -- both ways; net:cut_one_way(from, to)
---     net:heal("a", "c")
---     net:close()                                         -- in after_each, after node.stop_all()
---
--- `netns.missing()` tells why this machine cannot, for pending().

local uv = require "luv"
local node = require "spec.support.node"

local M = {}

local PORT = 7400

local Net = {}
Net.__index = Net

local serial = 0
local why_not

local function ip(words)
  local list = {}
  for word in words:gmatch "%S+" do list[#list + 1] = word end
  return node.run("ip", list, { timeout = 10 })
end

local function must(words)
  local r = ip(words)
  if r.code ~= 0 then error(("ip %s: %s"):format(words, r.err), 2) end
end

--- nil where namespaces can be made; else the reason, for pending().
---@return string?
function M.missing()
  if why_not ~= nil then return why_not or nil end
  why_not = false
  local ok, problem = pcall(function() M.open({ "a", "b" }):close() end)
  if not ok then
    why_not = "needs to be root, and iproute2: " .. tostring(problem):gsub("%s+$", "")
  end
  return why_not or nil
end

--- Makes the namespaces, with a bridge between them.
---@param names string[]
---@return table net
function M.open(names)
  serial = serial + 1
  local self = setmetatable({
    prefix = ("mpreg-%d-%d-"):format(uv.os_getpid(), serial), made = {}, addrs = {},
  }, Net)
  local ok, problem = pcall(self.build, self, names)
  if not ok then
    self:close()
    error(problem, 2)
  end
  return self
end

function Net:add(name)
  must("netns add " .. self.prefix .. name)
  self.made[#self.made + 1] = name
  must(("-n %s%s link set lo up"):format(self.prefix, name))
end

function Net:build(names)
  self:add "bridge"
  local bridge = self.prefix .. "bridge"
  must(("-n %s link add br0 type bridge"):format(bridge))
  must(("-n %s link set br0 up"):format(bridge))
  for i, name in ipairs(names) do
    self:add(name)
    self.addrs[name] = ("10.77.0.%d"):format(i)
    must(("-n %s link add port%d type veth peer name eth0 netns %s%s"):format(bridge, i,
      self.prefix, name))
    must(("-n %s link set port%d master br0"):format(bridge, i))
    must(("-n %s link set port%d up"):format(bridge, i))
    must(("-n %s%s address add %s/24 dev eth0"):format(self.prefix, name, self.addrs[name]))
    must(("-n %s%s link set eth0 up"):format(self.prefix, name))
  end
end

--- HOST:PORT of the node in a namespace.
function Net:at(name) return ("%s:%d"):format(self.addrs[name], PORT) end

--- Starts a node there, named after its namespace. Its methods are those of spec.support.node;
--- commands against it run in its namespace.
---@param name string
---@param flags? string[]
---@param opts? table  as for node.spawn
---@return table node
function Net:start(name, flags, opts)
  local args = { "--name", name, "--insecure", "--listen", self:at(name) }
  for _, flag in ipairs(flags or {}) do args[#args + 1] = flag end
  return node.start(args, setmetatable({
    through = { "ip", "netns", "exec", self.prefix .. name },
  }, { __index = opts }))
end

--- What `from` sends to `to` goes nowhere from now on.
function Net:cut_one_way(from, to)
  must(("-n %s%s route add blackhole %s"):format(self.prefix, from, self.addrs[to]))
end

--- Neither reaches the other.
function Net:cut(one, other)
  self:cut_one_way(one, other)
  self:cut_one_way(other, one)
end

--- Undoes whatever cuts there are between the two.
function Net:heal(one, other)
  ip(("-n %s%s route del blackhole %s"):format(self.prefix, one, self.addrs[other]))
  ip(("-n %s%s route del blackhole %s"):format(self.prefix, other, self.addrs[one]))
end

--- Removes all of it.
function Net:close()
  for i = #self.made, 1, -1 do ip("netns delete " .. self.prefix .. self.made[i]) end
  self.made = {}
end

return M
