--- What the cluster's benchmarks call. bench/cluster.lua loads it into different nodes under
--- different names, so that each name is to be had on one node only.
local place = { _VERSION = "1.0.0" }

local mpreg = require "mpreg"

local FACTOR = 1 -- how much slower than others this node is

--- Its argument.
---@param x? any
---@return any
function place.echo(x)
  return x
end

local text = ""

--- A text of that many bytes.
---@param bytes integer
---@return string
function place.make(bytes)
  if #text ~= bytes then text = ("x"):rep(bytes) end
  return text
end

--- Its length.
---@param value string
---@return integer
function place.size(value)
  return #value
end

--- Computes for so long.
---@param seconds number  of processor time, on a node that is not slowed down
function place.work(seconds)
  local till = os.clock() + seconds * FACTOR
  while os.clock() < till do end
end

--- Waits for so long.
---@param seconds number
function place.wait(seconds)
  mpreg.sleep(seconds)
end

return place
