-- The peer Tarantool: tarantool bench/tarantool.lua PORT FOLDER. Nothing is written to disk.
-- luacheck: globals box echo fib
local port, folder = arg[1], arg[2]

function echo(x) return x end

local function local_fib(n)
  if n < 2 then return n end
  return local_fib(n - 1) + local_fib(n - 2)
end
fib = local_fib

box.cfg {
  listen = "127.0.0.1:" .. port, wal_mode = "none", work_dir = folder, memtx_memory = 64 * 2 ^ 20,
  log_level = 2, net_msg_max = 4096,
}
box.schema.user.grant("guest", "super", nil, nil, { if_not_exists = true })
io.stdout:write "ready\n"
io.stdout:flush()
