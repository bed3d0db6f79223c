--- What `make bench` calls.
local bench = { _VERSION = "1.0.0" }

local function fib(n)
  if n < 2 then return n end
  return fib(n - 1) + fib(n - 2)
end

--- The n-th Fibonacci number, the slow way.
---@param n integer
---@return integer
function bench.fib(n)
  return fib(n)
end

--- As little as a step can do.
---@param x? any
---@return any
function bench.tiny(x)
  return x
end

--- The numbers from 1 to n.
---@param n integer
---@return integer[]
function bench.list(n)
  local list = {}
  for i = 1, n do list[i] = i end
  return list
end

--- How many there are.
---@param list any[]
---@return integer
function bench.count(list)
  return #list
end

return bench
