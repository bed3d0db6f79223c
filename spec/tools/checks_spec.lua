-- Each mechanical check refuses what it is there to refuse, and accepts the like that is allowed.
local layers = dofile("tools/layers.lua")

local function run(command)
  local pipe = assert(io.popen("( " .. command .. " ) 2>&1; echo \" $?\""))
  local output = pipe:read("*a")
  pipe:close()
  return tonumber(output:match("(%d+)%s*$")), output
end

local function write(path, text)
  local file = assert(io.open(path, "w"))
  file:write(text)
  file:close()
end

describe("tools/layers.lua", function()
  local function faults(path, text) return table.concat(layers.check_file(path, text), "\n") end

  it("accepts what the table allows", function()
    local include = '#include "src/%s"\n'
    assert.equal("", faults("src/core/graph/a.c", include:format("core/graph/graph.h")
      .. include:format("wire/msgpack.h") .. "#include <stdint.h>\n"))
    assert.equal("", faults("src/core/node/a.c", include:format("core/rpc/rpc.h")))
    assert.equal("", faults("src/host/a.c", "#include <uv.h>\n#include <unistd.h>\n"
      .. include:format("host/ring/ring.h") .. include:format("json/json.h")))
    assert.equal("", faults("src/worker/a.c", "#include <lua.h>\n"
      .. include:format("binding/binding.h")))
    assert.equal("", faults("spec/c/core/graph/a_test.c", "#include <cmocka.h>\n"
      .. include:format("core/graph/graph_internal.h")))
  end)

  for _, case in ipairs {
    { "a machine that knows its sibling",
      "src/core/graph/a.c", '"src/core/rpc/rpc.h"', "core/graph may not include core/rpc" },
    { "a machine that knows the composition",
      "src/core/rpc/a.c", '"src/core/node/node.h"', "core/rpc may not include core/node" },
    { "base that knows wire",
      "src/base/a.c", '"src/wire/msgpack.h"', "base may not include wire" },
    { "the core with a clock",
      "src/core/node/a.c", "<time.h>", "may not include <time.h>" },
    { "the core with libuv",
      "src/core/node/a.c", "<uv.h>", "may not include <uv.h>" },
    { "the host with Lua",
      "src/host/a.c", "<lua.h>", "may not include <lua.h>" },
    { "the host with the worker",
      "src/host/a.c", '"src/worker/worker.h"', "host may not include worker" },
    { "the binding with the host beyond its rings",
      "src/binding/a.c", '"src/host/host.h"', "binding may not include host" },
    { "the JSON parser outside src/json",
      "src/client/a.c", "<yajl/yajl_parse.h>", "may not include <yajl/yajl_parse.h>" },
    { "another folder's internal header",
      "src/host/a.c", '"src/core/graph/graph_internal.h"', "is internal to src/core/graph" },
    { "a name that is not from the root",
      "src/host/a.c", '"host.h"', "not written from the repository root" },
    { "a computed include",
      "src/host/a.c", "HEADER", "neither" },
    { "a header nobody knows",
      "src/host/a.c", "<zmq.h>", "in no family" },
    { "a folder nobody knows",
      "src/other/a.c", "<stdint.h>", "not in tools/layers.lua" },
  } do
    it("refuses " .. case[1], function()
      local text = "/* why */\n#include " .. case[3] .. "\n"
      assert.truthy(faults(case[2], text):find(case[4], 1, true), faults(case[2], text))
    end)
  end

  it("refuses a header without #pragma once", function()
    assert.truthy(faults("src/base/a.h", "int mp_a;\n"):find("pragma once", 1, true))
    assert.equal("", faults("src/base/a.h", "#pragma once\n"))
  end)
end)

describe("the checks on what was built", function()
  local folder
  before_each(function()
    folder = os.tmpname()
    os.remove(folder)
    assert(run("mkdir -p " .. folder .. "/spec " .. folder .. "/src/base " .. folder .. "/lua/a "
      .. folder .. "/rockspec") == 0)
  end)
  after_each(function() run("rm -rf " .. folder) end)

  -- Puts a C source into the archive lib<name>.a.
  local function archive(name, source)
    write(folder .. "/a.c", source)
    assert.equal(0, (run(("cd %s && cc -O1 -c a.c -o %s.o && ar rc lib%s.a %s.o"):format(
      folder, name, name, name))))
  end
  local function symbols() return run("tools/symbols.sh " .. folder) end

  it("accept an import of the layer below", function()
    archive("mp_base", "#include <string.h>\nvoid mp_a(void *p, int n) { memset(p, n, n); }")
    archive("mp_core_rpc", "void mp_a(void *p, int n); void mp_b(void) { mp_a(0, 0); }")
    local status, output = symbols()
    assert.equal(0, status, output)
  end)

  it("refuse a core that allocates", function()
    archive("mp_base", "#include <stdlib.h>\nvoid *mp_a(int n) { return malloc(n); }")
    local status, output = symbols()
    assert.equal(1, status)
    assert.truthy(output:find("mp_base imports malloc", 1, true), output)
  end)

  it("refuse a machine that calls its sibling", function()
    archive("mp_core_rpc", "void mp_b(void) { }")
    archive("mp_core_graph", "void mp_b(void); void mp_c(void) { mp_b(); }")
    local status, output = symbols()
    assert.equal(1, status)
    assert.truthy(output:find("mp_core_graph imports mp_b of mp_core_rpc", 1, true), output)
  end)

  it("refuse a global symbol without the prefix", function()
    archive("mp_host", "int counter;")
    local status, output = symbols()
    assert.equal(1, status)
    assert.truthy(output:find("mp_host exports counter", 1, true), output)
  end)

  it("refuse a folder where nothing was built", function()
    assert.equal(1, (symbols()))
    assert.equal(1, (run("tools/links.sh " .. folder)))
  end)

  it("refuse a core spec that links with libuv", function()
    write(folder .. "/a.c", "int main(void) { return 0; }")
    local link = ("cd %s && cc a.c -Wl,--no-as-needed %%s -o spec/core-a_test"):format(folder)
    assert.equal(0, (run(link:format(""))))
    assert.equal(0, (run("tools/links.sh " .. folder)))
    assert.equal(0, (run(link:format("-luv"))))
    local status, output = run("tools/links.sh " .. folder)
    assert.equal(1, status)
    assert.truthy(output:find("needs libuv", 1, true), output)
  end)

  it("refuse a simulator with another core than the node's", function()
    local function build(size)
      local script = [[set -e; cd %s; mkdir -p CMakeFiles/mpreg.dir CMakeFiles/mpreg-sim.dir
        for program in mpreg mpreg-sim; do
          echo "cc main.o -o $program libmp_base.a" >CMakeFiles/$program.dir/link.txt; done
        echo 'int mp_a[1]; int main(void) { return 0; }' >a.c; cc -c a.c -o a.o
        rm -f libmp_base.a; ar rc libmp_base.a a.o; cc a.o -o mpreg
        echo 'int mp_a[%d]; int main(void) { return 0; }' >a.c; cc a.c -o mpreg-sim]]
      assert.equal(0, (run(script:format(folder, size))))
      return run("tools/same_core.sh " .. folder)
    end
    assert.equal(0, (build(1)))
    local status, output = build(2)
    assert.equal(1, status)
    assert.truthy(output:find("not the same code", 1, true), output)
    build(1)
    write(folder .. "/CMakeFiles/mpreg-sim.dir/link.txt", "cc main.o other/libmp_base.a\n")
    status, output = run("tools/same_core.sh " .. folder)
    assert.equal(1, status)
    assert.truthy(output:find("link other archives", 1, true), output)
    build(1)
    run(("cd %s/CMakeFiles && mkdir -p mp_base.dir/src/base mp_x.dir/src/base && "
      .. "touch mp_base.dir/src/base/a.c.o mp_x.dir/src/base/a.c.o"):format(folder))
    status, output = run("tools/same_core.sh " .. folder)
    assert.equal(1, status)
    assert.truthy(output:find("compiled more than once", 1, true), output)
  end)

  it("refuse a header that does not compile alone", function()
    write(folder .. "/src/base/a.h", "#pragma once\n#include <stdint.h>\nuint8_t mp_a(void);\n")
    assert.equal(0, (run("tools/headers.sh " .. folder)))
    write(folder .. "/src/base/b.h", "#pragma once\nuint8_t mp_b(void);\n")
    local status, output = run("tools/headers.sh " .. folder)
    assert.equal(1, status)
    assert.truthy(output:find("src/base/b.h does not compile alone", 1, true), output)
  end)

  it("refuse a link in the docs that leads nowhere", function()
    write(folder .. "/a.md", "# One thing\n\n[b](lua) [c](#one-thing) [d](other:x) `[e](f)`\n")
    assert.equal(0, (run("luajit tools/docs.lua " .. folder)))
    write(folder .. "/b.md", "[a](a.md#one-thing) [b](a.md#two) [c](c.md)\n")
    local status, output = run("luajit tools/docs.lua " .. folder)
    assert.equal(1, status)
    assert.truthy(output:find("(a.md#two) has no such heading", 1, true), output)
    assert.truthy(output:find("(c.md) is not there", 1, true), output)
  end)

  it("refuse a rock that misses a file or lists one that is not there", function()
    local rockspec = folder .. "/rockspec/mpreg-scm-1.rockspec"
    local check = "tool=$PWD/tools/rock.lua; cd " .. folder .. " && luajit $tool"
    write(folder .. "/lua/a/init.lua", "return {}\n")
    write(rockspec, 'build = { modules = { a = "lua/a/init.lua" } }')
    assert.equal(0, (run(check)))
    write(rockspec, 'build = { modules = { b = "lua/b.lua" } }')
    local status, output = run(check)
    assert.equal(1, status)
    assert.truthy(output:find('missing: ["a"]', 1, true), output)
    assert.truthy(output:find('not there: ["b"]', 1, true), output)
  end)
end)
