-- Prints a run object for people: what `mpreg run … --trace -o json` wrote, as its trace and the
-- text that the run's output holds under "report".
--
--   luajit tools/show_run.lua trace|report FILE [--width COLUMNS] [--color]

package.path = "lua/?.lua;lua/?/init.lua;" .. package.path

local what, path, style = arg[1], arg[2], {}
for i = 3, #arg do
  if arg[i] == "--width" then style.width = tonumber(arg[i + 1]) end
  if arg[i] == "--color" then style.color = true end
end
local file = assert(io.open(path))
local run = require "cjson".decode(file:read("*a"))
file:close()

style.name = run.name
if what == "trace" then
  io.write(require "mpreg.render.trace".text(run, style))
elseif type(run.output) == "table" and type(run.output.report) == "string" then
  io.write((run.output.report:gsub("\n*$", "\n")))
else
  io.stderr:write("the run's output has no report\n")
  os.exit(1)
end
