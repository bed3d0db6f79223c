-- Files over 1,000 lines and C functions over 100: a list to think about, never a failure.
--
--   luajit tools/sizes.lua [ROOT]

local FILE_LINES_MAX, FUNCTION_LINES_MAX = 1000, 100

local root = arg[1] or "."
local list = assert(io.popen(("cd '%s' && find src lua modules spec tools bench " ..
  "\\( -name '*.[ch]' -o -name '*.lua' -o -name '*.py' \\) 2>/dev/null | sort"):format(root)))
for path in list:lines() do
  local number, began, name, last = 0, nil, nil, ""
  for line in io.lines(root .. "/" .. path) do
    number = number + 1
    if path:match("%.c$") then
      -- A function's braces stand in the first column, and nothing else's that opens like this.
      if line == "{" then
        began, name = number, last
      elseif line == "}" and began then
        if number - began - 1 > FUNCTION_LINES_MAX then
          print(("%s:%d: a function of %d lines: %s"):format(path, began, number - began - 1, name))
        end
        began = nil
      end
    end
    last = line
  end
  if number > FILE_LINES_MAX then print(("%s: %d lines"):format(path, number)) end
end
list:close()
