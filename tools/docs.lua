-- Each relative link in a Markdown file leads to a file that exists, and each heading that a link
-- names is there.
--
--   luajit tools/docs.lua [ROOT]        prints the faults; exit 1 if there are any

local root = arg[1] or "."

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read("*a") -- nil for a folder
  if file then file:close() end
  return text
end

-- The name that a heading is linked by: lower case, spaces to dashes, other signs left out.
local function anchor(heading)
  local text = heading:gsub("%[(.-)%]%(.-%)", "%1"):lower()
  return (text:gsub("[^%w%s_\128-\255-]", ""):gsub("%s", "-"))
end

local function has_heading(text, wanted)
  for heading in ("\n" .. text):gmatch("\n#+ +([^\n]*)") do
    if anchor(heading) == wanted then return true end
  end
  return false
end

local bad = false
local function fault(path, target, why)
  print(("%s: (%s) %s"):format(path, target, why))
  bad = true
end

local quoted = "'" .. root:gsub("'", "'\\''") .. "'"
local list = assert(io.popen("cd " .. quoted ..
  " && find . \\( -name .git -o -path './build*' \\) -prune -o -name '*.md' -print | sort"))
for path in list:lines() do
  local text = read(root .. "/" .. path):gsub("```.-```", ""):gsub("`[^`\n]*`", "`")
  for target in text:gmatch("%]%(([^)%s]+)%)") do
    if not target:match("^%a+:") then
      local file, heading = target:match("^([^#]*)#?(.*)$")
      local there = file == "" and path or path:match("^(.*)/") .. "/" .. file
      local exists = io.open(root .. "/" .. there)
      if not exists then
        fault(path, target, "is not there")
      else
        exists:close()
        local linked = heading ~= "" and read(root .. "/" .. there)
        if linked and not has_heading(linked, heading) then
          fault(path, target, "has no such heading")
        end
      end
    end
  end
end
list:close()
os.exit(bad and 1 or 0)
