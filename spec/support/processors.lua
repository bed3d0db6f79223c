--- What others take of this machine's processors, which bounds on time must leave out.

local M = {}

local JIFFY_MS = 10 -- of /proc/stat: USER_HZ is 100 on Linux

--- In jiffies: time that went by on all processors together, what of it went to other machines, and
--- a list of that for each processor.
local function read()
  local sum, stolen, each = 0, 0, {}
  local file = io.open "/proc/stat"
  if not file then return sum, stolen, each end
  for name, numbers in file:read("*a"):gmatch "(cpu%d*)([^\n]*)" do
    local place = 0
    for number in numbers:gmatch "%d+" do
      place = place + 1
      if place > 8 then break end -- guests' time is in the users' already
      if name == "cpu" then sum = sum + tonumber(number) end
      if place == 8 and name == "cpu" then
        stolen = tonumber(number)
      elseif place == 8 then
        each[#each + 1] = tonumber(number)
      end
    end
  end
  file:close()
  return sum, stolen, each
end

--- A virtual machine's processors are given to others at times. A function that tells which share
--- of the processors' time that was since this call, and how many milliseconds of the one that was
--- taken away longest; 0 and 0 where the system does not say.
function M.stolen_from_now()
  local sum, stolen, each = read()
  return function()
    local sum_now, stolen_now, each_now = read()
    local longest = 0
    for i, before in ipairs(each) do
      longest = math.max(longest, (each_now[i] or before) - before)
    end
    return sum_now > sum and (stolen_now - stolen) / (sum_now - sum) or 0, longest * JIFFY_MS
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
