--- Patterns of topics, as the option `subscribe` of a function has them.

local M = {}

local WORDS_MAX = 32
local WORD_BYTES_MAX = 64
local BYTES_MAX = 512

--- What is wrong with a pattern; nil if nothing is.
---@param pattern any
---@return string? why
function M.problem(pattern)
  if type(pattern) ~= "string" then
    return ("a pattern of topics is a text, not a %s"):format(type(pattern))
  end
  if #pattern > BYTES_MAX then
    return ("a pattern of topics has at most %d bytes, this one has %d"):format(BYTES_MAX, #pattern)
  end
  local count = 0
  for word in (pattern .. "."):gmatch("([^.]*)%.") do
    count = count + 1
    if word == "" then
      return ("%q: word %d is empty"):format(pattern, count)
    end
    if #word > WORD_BYTES_MAX then
      return ("%q: word %d has more than %d bytes"):format(pattern, count, WORD_BYTES_MAX)
    end
    if word ~= "*" and word ~= "#" and word:find("[^%w_-]") then
      return ("%q: word %d is %q; a word is *, #, or of letters, digits, _ and -")
        :format(pattern, count, word)
    end
  end
  if count > WORDS_MAX then
    return ("%q has %d words; at most %d are allowed"):format(pattern, count, WORDS_MAX)
  end
  return nil
end

return M
