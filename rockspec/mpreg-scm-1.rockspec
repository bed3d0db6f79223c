rockspec_format = "3.0"
package = "mpreg"
version = "scm-1"
source = {
  url = "git+file://.",
}
description = {
  summary = "Distributed compute: Lua functions and pipelines where their data is",
  detailed = [[
    The Lua side of mpreg: what functions and pipelines require. Outside a node it builds and checks
    pipelines, so that they can be unit-tested without one.
  ]],
  license = "Apache-2.0",
}
dependencies = {
  "lua == 5.1",
  "lua-cjson >= 2.1",
}
build = {
  type = "builtin",
  modules = {
    ["mpreg.cli.args"] = "lua/mpreg/cli/args.lua",
    ["mpreg.cli.bench"] = "lua/mpreg/cli/bench.lua",
    ["mpreg.cli.call"] = "lua/mpreg/cli/call.lua",
    ["mpreg.cli.complete"] = "lua/mpreg/cli/complete.lua",
    ["mpreg.cli.connection"] = "lua/mpreg/cli/connection.lua",
    ["mpreg.cli.exit"] = "lua/mpreg/cli/exit.lua",
    ["mpreg.cli.forget"] = "lua/mpreg/cli/forget.lua",
    ["mpreg.cli.functions"] = "lua/mpreg/cli/functions.lua",
    ["mpreg.cli"] = "lua/mpreg/cli/init.lua",
    ["mpreg.cli.json"] = "lua/mpreg/cli/json.lua",
    ["mpreg.cli.links"] = "lua/mpreg/cli/links.lua",
    ["mpreg.cli.modules"] = "lua/mpreg/cli/modules.lua",
    ["mpreg.cli.node"] = "lua/mpreg/cli/node.lua",
    ["mpreg.cli.node_config"] = "lua/mpreg/cli/node_config.lua",
    ["mpreg.cli.nodes"] = "lua/mpreg/cli/nodes.lua",
    ["mpreg.cli.output"] = "lua/mpreg/cli/output.lua",
    ["mpreg.cli.plan"] = "lua/mpreg/cli/plan.lua",
    ["mpreg.cli.repl"] = "lua/mpreg/cli/repl.lua",
    ["mpreg.cli.run"] = "lua/mpreg/cli/run.lua",
    ["mpreg.cli.source"] = "lua/mpreg/cli/source.lua",
    ["mpreg.cli.status"] = "lua/mpreg/cli/status.lua",
    ["mpreg.cli.topology"] = "lua/mpreg/cli/topology.lua",
    ["mpreg.client"] = "lua/mpreg/client.lua",
    ["mpreg"] = "lua/mpreg/init.lua",
    ["mpreg.pipeline"] = "lua/mpreg/pipeline.lua",
    ["mpreg.render.error"] = "lua/mpreg/render/error.lua",
    ["mpreg.render.members"] = "lua/mpreg/render/members.lua",
    ["mpreg.render.plan"] = "lua/mpreg/render/plan.lua",
    ["mpreg.render.progress"] = "lua/mpreg/render/progress.lua",
    ["mpreg.render.table"] = "lua/mpreg/render/table.lua",
    ["mpreg.render.text"] = "lua/mpreg/render/text.lua",
    ["mpreg.render.topology"] = "lua/mpreg/render/topology.lua",
    ["mpreg.render.trace"] = "lua/mpreg/render/trace.lua",
    ["mpreg.render.value"] = "lua/mpreg/render/value.lua",
    ["mpreg.repl.chunk"] = "lua/mpreg/repl/chunk.lua",
    ["mpreg.repl.commands"] = "lua/mpreg/repl/commands.lua",
    ["mpreg.repl.complete"] = "lua/mpreg/repl/complete.lua",
    ["mpreg.repl.doc"] = "lua/mpreg/repl/doc.lua",
    ["mpreg.repl.fold"] = "lua/mpreg/repl/fold.lua",
    ["mpreg.repl.history"] = "lua/mpreg/repl/history.lua",
    ["mpreg.repl.link"] = "lua/mpreg/repl/link.lua",
    ["mpreg.repl.styled"] = "lua/mpreg/repl/styled.lua",
    ["mpreg.runtime.describe"] = "lua/mpreg/runtime/describe.lua",
    ["mpreg.runtime.doc"] = "lua/mpreg/runtime/doc.lua",
    ["mpreg.runtime.failure"] = "lua/mpreg/runtime/failure.lua",
    ["mpreg.runtime.module"] = "lua/mpreg/runtime/module.lua",
    ["mpreg.runtime.options"] = "lua/mpreg/runtime/options.lua",
    ["mpreg.runtime.output"] = "lua/mpreg/runtime/output.lua",
    ["mpreg.runtime.sandbox"] = "lua/mpreg/runtime/sandbox.lua",
    ["mpreg.runtime.span"] = "lua/mpreg/runtime/span.lua",
    ["mpreg.runtime.worker"] = "lua/mpreg/runtime/worker.lua",
    ["mpreg.session.cluster"] = "lua/mpreg/session/cluster.lua",
    ["mpreg.session.complete"] = "lua/mpreg/session/complete.lua",
    ["mpreg.session"] = "lua/mpreg/session/init.lua",
    ["mpreg.suggest"] = "lua/mpreg/suggest.lua",
    ["mpreg.units"] = "lua/mpreg/units.lua",
  },
}
