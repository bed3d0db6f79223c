-- Topics between real processes: who gets what, in which order, what is told to who is too slow,
-- and how the commands end.

local client = require "mpreg.client"
local cluster = require "spec.support.cluster"
local codec = require "mpreg.codec"
local node = require "spec.support.node"
local uv = require "luv"

--- Starts `mpreg sub` at a node and waits until it is subscribed there.
local function subscribe(n, args)
  local words = { "sub", unpack(args) }
  words[#words + 1], words[#words + 2] = "-o", "json"
  local sub = n:spawn(words)
  sub:wait_for("err", "(subscribed)")
  return sub
end

--- The objects that a subscriber has printed so far.
local function objects(sub)
  local list = {}
  for line in sub:out():gmatch("([^\n]*)\n") do
    list[#list + 1] = assert(codec.json_decode(line))
  end
  return list
end

local function await_count(sub, count, seconds)
  local lines = 0
  node.eventually(function()
    lines = select(2, sub:out():gsub("\n", ""))
    return lines >= count
  end, ("%d lines of a subscriber"):format(count), seconds or 30)
  return objects(sub)
end

local function datas(list)
  local out = {}
  for i, m in ipairs(list) do out[i] = m.data end
  return out
end

--- Publishes at a node until what subscribes elsewhere gets it: its node's interest is known there.
local function reach(n, topic, sub)
  local before = #sub:out()
  node.eventually(function()
    assert.are.equal(0, n:mpreg({ "pub", topic, '"probe"' }).code)
    return #sub:out() > before
  end, "a subscription that is known to another node", 10)
end

--- Without the messages that `reach` published.
local function without_probes(list)
  local out = {}
  for _, m in ipairs(list) do
    if m.data ~= "probe" then out[#out + 1] = m end
  end
  return out
end

local function interrupt(sub)
  sub:kill "sigint"
  local r = sub:wait()
  assert.are.equal(130, r.code, r.err)
  return r
end

describe("a topic on one node", function()
  local n, c

  setup(function()
    n = node.start { "--name", "n1", "--workers", "2", "--load",
      "spec/functional/fixtures/topics.lua" }
    c = assert(client.connect { nodes = { n.addr }, timeout = "10s" })
  end)
  teardown(function()
    c:close()
    local ok, err = pcall(n.stop, n)
    node.stop_all()
    assert(ok, err)
  end)

  it("brings a message to who subscribes, as JSON", function()
    local sub = subscribe(n, { "quakes.#", "--count", "1" })
    local r = n:mpreg { "pub", "quakes.chile.strong", '{"mag": 6.1, "list": []}', "-o", "json" }
    assert.are.equal(0, r.code, r.err)
    local accepted = codec.json_decode(r.out)
    assert.are.same({ "n1", 1 }, { accepted.publisher, accepted.count })
    r = sub:wait()
    assert.are.equal(0, r.code, r.err)
    local m = codec.json_decode(r.out)
    assert.are.same({ "quakes.chile.strong", { mag = 6.1, list = {} }, "n1", accepted.seq },
      { m.topic, m.data, m.publisher, m.seq })
    assert.is_true(math.abs(m.at - os.time() * 1000) < 60000)
    assert.is_truthy(r.out:find('^{"topic":"quakes.chile.strong","data":{"mag":6.1,"list":%[%]},'
      .. '"publisher":"n1","seq":%d+,"at":%d+}\n$'), r.out)
  end)

  it("brings it as text, a line each", function()
    local sub = n:spawn { "sub", "logs.*", "--count", "4" }
    sub:wait_for("err", "(subscribed to logs%.%* at n1)")
    for _, data in ipairs { '{"b":1,"a":"x\\ny"}', "plain text", "17" } do
      assert.are.equal(0, n:mpreg({ "pub", "logs.app", data }).code)
    end
    assert.are.equal(0, n:mpreg({ "pub", "logs.app" }).code)
    local r = sub:wait()
    assert.are.equal('logs.app {"a":"x\\ny","b":1}\nlogs.app "plain text"\nlogs.app 17\n'
      .. "logs.app null\n", r.out)
    assert.are.equal(0, r.code)
  end)

  it("has patterns with * and #, also in the middle", function()
    local patterns = { "a.*.c", "a.#.z", "#.b", "*", "a.b.c", "#", "*.*.#", "x" }
    local topics = { "a", "a.b", "a.b.c", "a.z", "a.b.c.z", "z.b", "b" }
    local matches = {
      { "a.b.c" }, { "a.z", "a.b.c.z" }, { "a.b", "z.b", "b" }, { "a", "b" }, { "a.b.c" }, topics,
      { "a.b", "a.b.c", "a.z", "a.b.c.z", "z.b" }, {},
    }
    local subs = {}
    for i, pattern in ipairs(patterns) do subs[i] = subscribe(n, { pattern }) end
    for _, topic in ipairs(topics) do assert(c:publish(topic, topic)) end
    for i, sub in ipairs(subs) do
      assert.are.same(matches[i], datas(await_count(sub, #matches[i])), patterns[i])
    end
    for _, sub in ipairs(subs) do interrupt(sub) end
  end)

  it("takes a line each, as JSON or as text", function()
    local sub = subscribe(n, { "lines", "--count", "5" })
    local lines = n:mpreg({ "pub", "lines", "--lines", "-o", "json" },
      { stdin = '{"a":1}\n[info] not JSON\n\n12\nlast' })
    assert.are.equal(0, lines.code, lines.err)
    assert.are.equal(5, codec.json_decode(lines.out).count)
    sub:wait()
    assert.are.same({ { a = 1 }, "[info] not JSON", "", 12, "last" }, datas(objects(sub)))
  end)

  it("publishes a line when it comes, not when stdin ends", function()
    local sub = subscribe(n, { "live", "--count", "2" })
    local pub = n:spawn({ "pub", "live", "--lines" }, { stdin = true })
    pub:write "1\n"
    await_count(sub, 1)
    pub:write "2\n"
    assert.are.equal(0, sub:wait().code)
    pub:close_stdin()
    assert.are.equal(0, pub:wait().code)
  end)

  it("is published to by functions, in order", function()
    local sub = subscribe(n, { "fun.#" })
    assert.are.equal("ok", c:call("topics.publish", "fun.a", { x = 1 }))
    assert.are.equal(5000, c:call("topics.count_to", "fun.b", 5000))
    local list = await_count(sub, 5001)
    assert.are.same({ "fun.a", { x = 1 } }, { list[1].topic, list[1].data })
    for i = 1, 5000 do
      assert.are.equal(i, list[i + 1].data)
      assert.are.equal(list[1].seq + i, list[i + 1].seq)
    end
    interrupt(sub)
    local none, err = c:call("topics.publish", "fun.*", 1)
    assert.is_nil(none)
    assert.are.same({ "INVALID_ARGUMENT", "BAD_TOPIC" }, { err.code, err.reason })
    none, err = c:call("topics.publish_function", "fun.a")
    assert.is_nil(none)
    assert.are.equal("UNENCODABLE", err.reason)
  end)

  it("is published to by sessions", function()
    local sub = subscribe(n, { "session.x", "--count", "1" })
    local r = n:mpreg { "repl", "-e", 'mpreg.publish("session.x", { 1, 2 })' }
    assert.are.equal(0, r.code, r.err)
    sub:wait()
    assert.are.same({ { 1, 2 } }, datas(objects(sub)))
    r = n:mpreg { "repl", "-e", 'mpreg.publish("session..x", 1)' }
    assert.are.equal(1, r.code)
    assert.is_truthy(r.err:find("INVALID_ARGUMENT/BAD_TOPIC", 1, true), r.err)
  end)

  it("is subscribed to by the library", function()
    local got = {}
    local pub = n:spawn({ "pub", "lib.a", "--lines" }, { stdin = true })
    assert.is_true(c:subscribe("lib.*", {
      on_subscribed = function(event)
        assert.are.same({ subscribed = "lib.*", node = "n1" }, event)
        pub:write "1\n2\n3\n"
      end,
    }, function(message)
      got[#got + 1] = message
      return message.data == 3
    end))
    assert.are.same({ 1, 2, 3 }, datas(got))
    assert.are.same({ "lib.a", "n1", "number" },
      { got[1].topic, got[1].publisher, type(got[1].at) })
    assert.are.equal("hello", c:call("mpreg.echo", "hello"))
    local ended, err = c:subscribe("lib.*", { timeout = "100ms" }, function() end)
    assert.is_nil(ended)
    assert.are.equal("DEADLINE_EXCEEDED", err.code)
    assert.has_error(function()
      c:subscribe("lib.*", { on_subscribed = function() error("no", 0) end }, function() end)
    end, "no")
    assert.are.equal("hello", c:call("mpreg.echo", "hello"))
    pub:close_stdin()
    pub:wait()
  end)

  it("refuses what is no topic, with exit code 2", function()
    local thousand = ("a."):rep(999) .. "a"
    for _, topic in ipairs { "", "a..b", ".a", "a.", "a.*", "#", "a.#.b", "a b", "ä", thousand,
      ("x"):rep(65536), ("x"):rep(65) } do
      local r = n:mpreg { "pub", topic, "1" }
      assert.are.equal(2, r.code, topic:sub(1, 20))
      assert.is_truthy(r.err:find("^error: INVALID_ARGUMENT/BAD_TOPIC: "), r.err)
      local none, err = c:publish(topic, 1)
      assert.is_nil(none)
      assert.are.same({ "INVALID_ARGUMENT", "BAD_TOPIC" }, { err.code, err.reason })
    end
    for _, pattern in ipairs { "", "a..b", "a.b*", "##", "a b", thousand, ("x"):rep(65000) } do
      local r = n:mpreg { "sub", pattern }
      assert.are.equal(2, r.code, pattern:sub(1, 20))
      assert.is_truthy(r.err:find("^error: INVALID_ARGUMENT/BAD_TOPIC: "), r.err)
      local none, err = c:subscribe(pattern, {}, function() end)
      assert.is_nil(none)
      assert.are.same({ "INVALID_ARGUMENT", "BAD_TOPIC" }, { err.code, err.reason })
    end
  end)

  it("takes all messages of a list or none", function()
    local sub = subscribe(n, { "all.#" })
    local bytes = codec.encode { { "all.a", 1 }, { "all.*", 2 }, { "all.c", 3 } }
    local none, err = c:publish_bytes(bytes)
    assert.is_nil(none)
    assert.are.equal("BAD_TOPIC", err.reason)
    assert(c:publish("all.d", 4))
    assert.are.same({ 4 }, datas(await_count(sub, 1)))
    interrupt(sub)
  end)

  it("ends a subscriber at its deadline, and when it is interrupted", function()
    local r = n:mpreg { "sub", "nothing", "-t", "200ms" }
    assert.are.equal(4, r.code, r.err)
    assert.is_truthy(r.err:find("0 messages came in 200 ms", 1, true), r.err)
    r = interrupt(subscribe(n, { "nothing" }))
    assert.are.equal("", r.out)
  end)

  it("ends a subscriber whose reader has gone, quietly", function()
    local sub = n:spawn({ "sub", "gone.x", "-o", "json" }, { closed_stdout = true })
    sub:wait_for("err", "(subscribed)")
    assert(c:publish("gone.x", 1))
    local r = sub:wait()
    assert.are.equal(1, r.code)
    assert.is_truthy(r.err:find("^subscribed[^\n]*\n$"), r.err)
  end)

  it("carries a thousand subscribers", function()
    local r = n:mpreg { "bench", "pub", "many.x", "--subscribers", "1000", "--pattern", "many.#",
      "--rate", "1000", "-d", "1s", "-o", "json" }
    assert.are.equal(0, r.code, r.err)
    local figures = codec.json_decode(r.out)
    assert.is_true(figures.published > 0)
    assert.are.equal(figures.published * 1000, figures.delivered)
    assert.are.equal(0, figures.dropped)
  end)

  it("is measured", function()
    local r = n:mpreg { "bench", "pub", "measured", "-d", "300ms", "-o", "json" }
    assert.are.equal(0, r.code, r.err)
    local figures = codec.json_decode(r.out)
    assert.are.same({ "delivered", "delivered_per_s", "dropped", "p50_us", "p99_us", "published",
      "published_per_s", "seconds" }, (function()
      local names = {}
      for name in pairs(figures) do names[#names + 1] = name end
      table.sort(names)
      return names
    end)())
    assert.are.equal(figures.published, figures.delivered + figures.dropped)
    for _, args in ipairs { { "a.*" }, { "a", "x" }, { "a", "--size", "4" }, { "a", "-c", "4" } } do
      r = n:mpreg { "bench", "pub", unpack(args) }
      assert.are.equal(2, r.code, r.err)
    end
  end)

  it("drops for who does not read, tells it, and stays as it was", function()
    local sub = subscribe(n, { "flood" })
    sub:kill "sigstop"
    local text = ("x"):rep(16000)
    local batch = codec.array {}
    for i = 1, 64 do batch[i] = codec.array { "flood", text } end
    local bytes = codec.encode(batch)
    local published = 0
    while published * 16000 < 200e6 do
      published = published + assert(codec.decode(assert(c:publish_bytes(bytes)))).count
    end
    assert.are.equal("alive", c:query("nodes").nodes[1].state)
    local file = assert(io.open(("/proc/%d/status"):format(n.pid)))
    local rss = tonumber(file:read("*a"):match("VmRSS:%s*(%d+)"))
    file:close()
    assert.is_true(rss * 1024 < 200e6 * cluster.SLOW, rss)
    sub:kill "sigcont"
    node.eventually(function()
      published = published + 1
      assert(c:publish("flood", "end"))
      return sub:out():find('"end"', 1, true)
    end, "the end of the flood", 60)
    local got, dropped, last = 0, 0, 0
    node.eventually(function()
      got, dropped, last = 0, 0, 0
      for _, m in ipairs(objects(sub)) do
        if m.dropped then
          dropped = dropped + m.dropped
          assert.are.same({ "n1", last }, { m.publisher, m.after_seq })
        else
          got = got + 1
          assert.is_true(m.seq > last)
          last = m.seq
        end
      end
      return got + dropped == published
    end, "an account of each message", 60)
    assert.is_true(dropped > 0)
    interrupt(sub)
  end)

  it("costs nothing while nothing happens", function()
    if not io.open "/usr/bin/strace" then
      pending "strace is not installed"
      return
    end
    local sub = subscribe(n, { "idle" })
    local path = os.tmpname()
    local tracer = node.spawn("/usr/bin/strace", { "-f", "-o", path, "-p", tostring(sub.pid), "-p",
      tostring(n.pid) })
    local ok = pcall(tracer.wait_for, tracer, "err", "(attached)", 10)
    if not ok then
      interrupt(sub)
      os.remove(path)
      pending "strace may not attach to processes here"
      return
    end
    assert(c:publish("idle", 1))
    await_count(sub, 1)
    local timer = uv.new_timer()
    local is_over = false
    local function lines_now()
      local file = assert(io.open(path))
      local text = file:read "*a"
      file:close()
      return text
    end
    local quiet = lines_now()
    timer:start(1500, 0, function() is_over = true end)
    node.eventually(function() return is_over end, "a second and a half", 10)
    timer:close()
    -- Nothing was exchanged: neither side has read or written a socket.
    local since = lines_now():sub(#quiet + 1)
    for call in since:gmatch("%d+ +(%l+[%l%d_]*)%(") do
      assert.is_nil(call:match("^write") or call:match("^read") or call:match("^send")
        or call:match("^recv"), since)
    end
    tracer:kill "sigint"
    tracer:wait()
    os.remove(path)
    interrupt(sub)
  end)
end)

describe("a topic between nodes", function()
  local c

  after_each(function()
    if c then c:close() end
    c = nil
    node.stop_all()
  end)

  it("brings a message to subscribers on other nodes, once each", function()
    c = cluster.start("line", 3)
    local subs = {}
    for i = 1, 3 do subs[i] = subscribe(c[i], { "a.#" }) end
    local twice = subscribe(c[3], { "a.*" })
    for i = 1, 3 do
      for k = 1, 3 do
        if i ~= k then reach(c[i], "a.probe", subs[k]) end
      end
    end
    for i = 1, 3 do assert.are.equal(0, c[i]:mpreg({ "pub", "a.b", tostring(i) }).code) end
    for _, sub in ipairs { subs[1], subs[2], subs[3], twice } do
      node.eventually(function() return #without_probes(objects(sub)) >= 3 end, "three messages")
      local by = {}
      for _, m in ipairs(without_probes(objects(sub))) do
        assert.is_nil(by[m.publisher])
        by[m.publisher] = m.data
      end
      assert.are.same({ n1 = 1, n2 = 2, n3 = 3 }, by)
      interrupt(sub)
    end
  end)

  it("keeps the order of each publisher, and loses nothing of what is read", function()
    c = cluster.start("mesh", 3)
    local sub = subscribe(c[1], { "order.#" })
    reach(c[2], "order.probe", sub)
    reach(c[3], "order.probe", sub)
    local numbers = {}
    for i = 1, 20000 do numbers[i] = i .. "\n" end
    local text = table.concat(numbers)
    local pubs = {}
    for i = 1, 3 do
      pubs[i] = c[i]:spawn({ "pub", "order.n" .. i, "--lines" }, { stdin = text })
    end
    for i = 1, 3 do assert.are.equal(0, pubs[i]:wait().code) end
    local function received()
      local list = {}
      for _, m in ipairs(objects(sub)) do
        if m.data ~= "probe" then list[#list + 1] = m end
      end
      return list
    end
    node.eventually(function()
      return select(2, sub:out():gsub("\n", "")) >= 60000
    end, "60,000 messages", 60)
    node.eventually(function() return #received() >= 60000 end, "60,000 messages", 30)
    local next_of = { n1 = 1, n2 = 1, n3 = 1 }
    for _, m in ipairs(received()) do
      assert.is_nil(m.dropped)
      assert.are.equal(next_of[m.publisher], m.data)
      next_of[m.publisher] = m.data + 1
    end
    assert.are.same({ n1 = 20001, n2 = 20001, n3 = 20001 }, next_of)
    interrupt(sub)
  end)

  it("joins what was with what is, without a gap or a repetition", function()
    c = cluster.start("line", 2)
    local pubs, next_number = {}, 1
    for i = 1, 2 do
      pubs[i] = c[i]:spawn({ "pub", "since.n" .. i, "--lines" }, { stdin = true })
    end
    local function publish(count)
      for _ = 1, count do
        for i = 1, 2 do pubs[i]:write(next_number .. "\n") end
        next_number = next_number + 1
      end
    end
    publish(200)
    -- Meanwhile more is published, a little in each turn of the loop.
    local timer = uv.new_timer()
    timer:start(1, 1, function()
      if next_number <= 800 then publish(1) end
    end)
    local subs = {}
    for i = 1, 4 do
      subs[i] = subscribe(c[i % 2 + 1], { "since.#", "--since", "1h" })
    end
    node.eventually(function() return next_number > 800 end, "all to be published", 30)
    timer:close()
    for _, pub in ipairs(pubs) do
      pub:close_stdin()
      assert.are.equal(0, pub:wait().code)
    end
    for _, sub in ipairs(subs) do
      local list = await_count(sub, 1600)
      local next_of = { n1 = 1, n2 = 1 }
      for _, m in ipairs(list) do
        assert.are.equal(next_of[m.publisher], m.data)
        next_of[m.publisher] = m.data + 1
      end
      assert.are.same({ n1 = 801, n2 = 801 }, next_of)
      interrupt(sub)
    end
    local late = subscribe(c[1], { "since.n2", "--since", "1d", "--count", "800" })
    assert.are.equal(0, late:wait().code)
  end)

  it("calls a subscribed function once for each message, in the whole cluster", function()
    local path
    local source = [[
      local mpreg = require "mpreg"
      local M = { _VERSION = "1.0.0", _mpreg = { on_message = { subscribe = "calls.*.strong" } } }
      function M.on_message(data, message)
        local file = io.open(data.path, "a")
        file:write(message.topic, " ", message.publisher, " ", data.number, "\n")
        file:close()
      end
      return M]]
    local def = { sources = { watcher = source } }
    c = cluster.start("mesh", { def, def, def })
    path = c:path()
    for i = 1, 3 do
      local connection = assert(client.connect { nodes = { c[i].addr } })
      for k = 1, 50 do
        assert(connection:publish(("calls.n%d.strong"):format(i), { path = path, number = k }))
        assert(connection:publish(("calls.n%d.weak"):format(i), { path = path, number = k }))
      end
      connection:close()
    end
    cluster.await_lines(path, 150)
    c:await_idle()
    local seen, count = {}, 0
    for _, line in ipairs(cluster.lines(path)) do
      local topic, publisher, number = line:match("^(%S+) (%S+) (%d+)$")
      assert.are.equal(("calls.%s.strong"):format(publisher), topic)
      assert.is_nil(seen[publisher .. number])
      seen[publisher .. number] = true
      count = count + 1
    end
    assert.are.equal(150, count)
  end)

  it("ends with an error when the node goes away under it", function()
    c = cluster.start("line", 2)
    local sub = subscribe(c[2], { "a.b" })
    c:kill(2)
    local r = sub:wait()
    assert.are.equal(1, r.code)
    assert.are.equal("CONNECTION_LOST", codec.json_decode(r.out).error.reason)
    sub = subscribe(c[1], { "a.b" })
    local started = uv.hrtime()
    c[1]:stop()
    assert.is_true((uv.hrtime() - started) / 1e9 < 5 * cluster.SLOW)
    r = sub:wait()
    assert.are.equal(1, r.code)
    assert.is_truthy(codec.json_decode(r.out).error, r.out)
  end)
end)
