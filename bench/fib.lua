-- Bare LuaJIT: how many fib(20) a second. luajit bench/fib.lua SECONDS
local seconds = tonumber(arg[1]) or 1

local function fib(n)
  if n < 2 then return n end
  return fib(n - 1) + fib(n - 2)
end

local ffi = require "ffi"
ffi.cdef "typedef struct { long s, ns; } mp_bench_time; int clock_gettime(int, mp_bench_time *);"
local time = ffi.new "mp_bench_time"
local function now()
  ffi.C.clock_gettime(1, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end

local began, count = now(), 0
repeat
  assert(fib(20) == 6765)
  count = count + 1
until now() - began >= seconds
print(count / (now() - began))
