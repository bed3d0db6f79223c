--- What others take of this machine's processors, which bounds on time must leave out.

local M = {}

local JIFFY_MS = 10 -- of /proc/stat: USER_HZ is 100 on Linux

--- Of all processors together, in jiffies: time that went by, and time that went to other machines.
local function read()
  local file = io.open "/proc/stat"
  local line = file and file:read "*l" or ""
  if file then file:close() end
  local sum, stolen, place = 0, 0, 0
  for number in line:gmatch "%d+" do
    place = place + 1
    if place > 8 then break end -- guests' time is in the users' already
    sum = sum + tonumber(number)
    if place == 8 then stolen = tonumber(number) end
  end
  return sum, stolen
end

--- A virtual machine's processors are given to others at times. A function that tells which share
--- of the processors' time that was since this call, and how many milliseconds; 0 and 0 where the
--- system does not say.
function M.stolen_from_now()
  local sum, stolen = read()
  return function()
    local sum_now, stolen_now = read()
    local taken = stolen_now - stolen
    return sum_now > sum and taken / (sum_now - sum) or 0, taken * JIFFY_MS
  end
end

--- Milliseconds that a process ("self" or its id) was ready to run and waited for a processor; 0
--- where the system does not say.
function M.run_delay_ms(pid)
  local file = io.open(("/proc/%s/schedstat"):format(pid))
  if not file then return 0 end
  local ns = file:read("*a"):match("^%d+ (%d+)")
  file:close()
  return tonumber(ns or 0) / 1e6
end

return M
