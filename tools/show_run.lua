-- Prints a run object for people: what `mpreg run … --trace -o json` wrote, as its trace and the
-- text that the run's output holds under "report".
--
--   luajit tools/show_run.lua trace|report FILE

package.path = "lua/?.lua;lua/?/init.lua;" .. package.path

local what, path = arg[1], arg[2]
local file = assert(io.open(path))
local run = require "cjson".decode(file:read("*a"))
file:close()

if what == "trace" then
  io.write(require "mpreg.render.trace".text(run, {}))
elseif type(run.output) == "table" and type(run.output.report) == "string" then
  io.write((run.output.report:gsub("\n*$", "\n")))
else
  io.stderr:write("the run's output has no report\n")
  os.exit(1)
end
