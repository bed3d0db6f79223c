--- Durations and sizes as people write them: `250ms`, `5s`, `1.5m`, `1h`; `64K`, `256M`, `1G`.

local M = {}

local MS = { ms = 1, s = 1000, m = 60 * 1000, h = 3600 * 1000, d = 86400 * 1000 }
local BYTES = { [""] = 1, K = 2 ^ 10, M = 2 ^ 20, G = 2 ^ 30 }

-- Over a year: no deadline, and far below what a double holds exactly.
local DURATION_MS_MAX = 366 * 86400 * 1000
local BYTES_MAX = 2 ^ 40

--- Milliseconds of a duration such as `5s`.
---@param text string
---@return number? milliseconds  a whole number
---@return string? problem  why it is none
function M.duration_ms(text)
  local number, unit = tostring(text):match("^(%d*%.?%d+)(%l+)$")
  local factor = MS[unit or ""]
  if not factor then
    return nil,
      ("'%s' is no duration: write a number and ms, s, m, h or d, such as 5s"):format(text)
  end
  local ms = tonumber(number) * factor
  -- 0.1 h and the like are whole milliseconds save for rounding.
  local whole = math.floor(ms + 0.5)
  if math.abs(ms - whole) > 1e-6 * math.max(1, ms) then
    return nil, ("'%s' is finer than a millisecond"):format(text)
  end
  if whole > DURATION_MS_MAX then
    return nil, ("'%s' is longer than 366 days"):format(text)
  end
  return whole
end

--- Bytes of a size such as `256M` (K, M, G are powers of 1024; none is bytes).
---@param text string
---@return number? bytes  a whole number
---@return string? problem  why it is none
function M.size_bytes(text)
  local number, unit = tostring(text):match("^(%d*%.?%d+)([KMG]?)i?B?$")
  if not number then
    return nil, ("'%s' is no size: write a number and K, M or G, such as 256M"):format(text)
  end
  local bytes = tonumber(number) * BYTES[unit]
  if bytes ~= math.floor(bytes) then
    return nil, ("'%s' is no whole number of bytes"):format(text)
  end
  if bytes > BYTES_MAX then
    return nil, ("'%s' is too large"):format(text)
  end
  return bytes
end

return M
