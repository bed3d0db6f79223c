--- "Did you mean": the nearest of some known words.

local M = {}

local WORD_BYTES_MAX = 256

--- How many insertions, deletions, substitutions and swaps of neighbours turn one word into the
--- other.
---@param a string
---@param b string
---@return number
function M.distance(a, b)
  local before, last, row = {}, {}, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    row[0] = i
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, last, row = last, row, before
  end
  return last[#b]
end

--- The nearest known word, if one is near enough to have been meant.
---@param word string
---@param known string[]
---@return string?
function M.nearest(word, known)
  if #word > WORD_BYTES_MAX then return nil end
  local best
  local best_distance = math.max(1, math.floor((#word + 1) / 3)) + 1
  for i = 1, #known do
    local distance = M.distance(word:lower(), known[i]:lower())
    if distance < best_distance or (distance == best_distance and best and known[i] < best) then
      best, best_distance = known[i], distance
    end
  end
  return best
end

--- The same as a sentence's end: `, did you mean 'x'?`, or nothing.
---@param word string
---@param known string[]
---@return string
function M.question(word, known)
  local near = M.nearest(word, known)
  return near and (", did you mean '%s'?"):format(near) or ""
end

return M
