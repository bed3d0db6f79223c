-- The long soak of deploys; `make soak-deploy` calls it: spec-lua tools/soak_deploy.lua
--
-- Three nodes, 64 calls and four runs always outstanding, 200 changes of what is live, 50 of them
-- bad; a million calls. What is checked stands in spec/support/deploy_soak.lua. One summary, exit 1
-- if any promise broke. p99 of the calls may be twice that of the same load without deploys, which
-- is measured in the same run before and after.

package.path = "./?.lua;./lua/?.lua;./lua/?/init.lua;" .. package.path

local soak = require "spec.support.deploy_soak"
local node = require "spec.support.node"

local DEPLOYS, BAD, CALLS, QUIET_S = 200, 50, 1000000, 10
local P99_RATIO = 2
local STOLEN_MAX = 0.02 -- of the processors' time; more is told

local function say(phase)
  io.stderr:write(phase, "\n")
end

local KINDS = { "failed call", "failed run", "lost", "wrong answer", "run with two versions",
  "good change refused", "bad deploy accepted", "bad deploy refused otherwise", "node not live",
  "nodes differ", "history" }

local function print_phase(name, phase)
  print(("  %-13s %8d calls · p50 %.2f ms · p99 %.2f ms"):format(name, phase.count, phase.p50,
    phase.p99))
end

local function summarize(r)
  local ratio = r.during.p99 / r.quiet.p99
  if ratio > P99_RATIO then
    r.failures[#r.failures + 1] = ("p99 with deploys is %.2f × that without"):format(ratio)
  end
  for _, text in ipairs(r.failures) do print("FAILED  " .. text) end
  print(("%d calls, %d runs; %d changes: %d good (%d rollbacks, %d undeploys), %d refused")
    :format(r.calls, r.runs, r.good + r.bad, r.good, r.rollbacks, r.undeploys, r.bad))
  local counts = {}
  for _, kind in ipairs(KINDS) do
    counts[#counts + 1] = ("%s %d"):format(kind, r.counts[kind] or 0)
  end
  print("  " .. table.concat(counts, " · "))
  print_phase("before", r.before)
  print_phase("with deploys", r.during)
  print_phase("after", r.after)
  print(("  p99 × %.2f (at most %g) · deploy p50 %.1f ms, p99 %.1f ms · changes took %.1f s")
    :format(ratio, P99_RATIO, r.deploy_p50, r.deploy_p99, r.seconds))
  if r.stolen > STOLEN_MAX then
    print(("  %.0f %% of the processors' time went to other machines"):format(100 * r.stolen))
  end
  print(#r.failures == 0 and "all promises held" or "promises broke")
end

local ok, result = pcall(soak.run,
  { deploys = DEPLOYS, bad = BAD, calls = CALLS, quiet_s = QUIET_S, say = say })
node.stop_all()
if not ok then
  io.stderr:write("soak-deploy: ", tostring(result), "\n")
  os.exit(1)
end
summarize(result)
os.exit(#result.failures == 0 and 0 or 1)
