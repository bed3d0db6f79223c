--- The scratch process of a deploy: loads a unit in a runtime that serves nobody, as a worker will,
--- and tells what is in it, or why it cannot be loaded.
---
--- What the process gives (`native`):
---
---   read() → unit, others     the unit: a list of { name, source }; others: a list of such units,
---                             those that are deployed now (of two with one module the later
---                             counts)
---   send(ok, value)           true and the metadata of the unit's modules in its order, or false
---                             and an ERROR
---   deadline(seconds)         when that has passed, an error "FILE:LINE: …" is raised in what the
---                             caller calls, again and again until it has returned
---   deadline(nil) → message   ends that; the first such error, or nil
---   resource(name) → value, node() → name, cluster, address   as functions have them
---
--- Code that loads cannot call functions, wait or sleep, here as in a worker. What it prints goes
--- nowhere. Loops that the deadline does not reach (inside C) are for whoever started the process.

local UNIT_SECONDS = 2 -- for all of its modules
local OTHER_SECONDS = 0.5 -- for a deployed module that requires one of them
local UNIT = 1
local BEFORE, AFTER = 1, 2 -- releases: without the unit, and with it

---@class mpreg.check.Native
---@field read fun(): table[], table[][]
---@field send fun(ok: boolean, value: any)
---@field deadline fun(seconds: number?): string?
---@field resource fun(name: string): any
---@field node fun(): string, string, string

local function nothing() end

--- What modules have under "mpreg.worker" in a worker, as far as loading needs it.
local function stand_in(native)
  return {
    mark = newproxy(),
    log = nothing,
    resource = native.resource,
    node = native.node,
    take_text = function() return 0 end,
    in_call = function() return false end,
    release = function() return AFTER end,
    loading = nothing,
    forget = nothing,
  }
end

local function sorted(live)
  local entries = {}
  for _, entry in pairs(live) do
    entries[#entries + 1] = entry
  end
  table.sort(entries, function(a, b) return a[3] < b[3] end)
  return entries
end

--- Adds all modules; gives those of the unit and the others that stay live, with their numbers.
local function add_all(module, unit, others)
  local live, numbers, count = {}, {}, 0
  local function add(unit_number, name, source)
    count = count + 1
    module.add(count, unit_number, name, source)
    live[name] = { name, unit_number, count }
    return count
  end
  for i, other in ipairs(others) do
    for _, pair in ipairs(other) do
      add(UNIT + i, pair[1], pair[2])
    end
  end
  module.open(BEFORE, sorted(live))
  for i, pair in ipairs(unit) do
    numbers[i] = add(UNIT, pair[1], pair[2])
  end
  local entries, staying = sorted(live), {}
  module.open(AFTER, entries)
  for _, entry in ipairs(entries) do
    staying[#staying + 1] = entry[2] ~= UNIT and entry or nil
  end
  return numbers, staying
end

--- Those modules that name one of the unit's in a `require`, or one that does.
local function concerned(module, unit, staying)
  local names, found = {}, {}
  for _, pair in ipairs(unit) do
    names[pair[1]] = true
  end
  local has_grown = true
  while has_grown do
    has_grown = false
    for _, entry in ipairs(staying) do
      for _, name in ipairs(found[entry] and {} or module.mentions(module.module(entry[3]))) do
        if names[name] and not found[entry] then
          found[entry], names[entry[1]], has_grown = true, true, true
        end
      end
    end
  end
  local list = {}
  for _, entry in ipairs(staying) do
    list[#list + 1] = found[entry] and entry or nil
  end
  return list
end

--- Loads modules, in so much time for all of them. Gives the ERROR of the first that fails, or nil
--- and their metadata.
local function load_all(native, module, numbers, seconds)
  local failure = require "mpreg.runtime.failure"
  local all, current = {}, nil
  local function load_each()
    for i, number in ipairs(numbers) do
      current = number
      local ok, err, _, metadata = module.load(number, true)
      if not ok then
        return err
      end
      all[i] = metadata
    end
  end
  native.deadline(seconds)
  local ok, err = pcall(load_each)
  local late = native.deadline(nil)
  if late then
    return failure.new("INVALID_ARGUMENT", late, { reason = "LOAD_TIMEOUT",
      hint = "what takes long belongs into a function, not beside it" })
  end
  if not ok then
    err = module.load_error(current, err)
  end
  return err, all
end

local function could_be_loaded(native, module, number)
  native.deadline(OTHER_SECONDS)
  local ok = pcall(module.find, number, BEFORE)
  return native.deadline(nil) == nil and ok
end

local function check(native, module)
  local failure = require "mpreg.runtime.failure"
  local unit, others = native.read()
  local numbers, staying = add_all(module, unit, others)
  local err, all = load_all(native, module, numbers, UNIT_SECONDS)
  if err then
    return false, err
  end
  for _, entry in ipairs(concerned(module, unit, staying)) do
    err = load_all(native, module, { entry[3] }, OTHER_SECONDS)
    -- What could not be loaded without the unit either is not the unit's fault.
    if err and could_be_loaded(native, module, entry[3]) then
      return false, failure.new("FAILED_PRECONDITION", ("module '%s', which is deployed, can no "
        .. "longer be loaded: %s"):format(entry[1], err.message), { reason = "BREAKS_MODULE",
        hint = ("deploy a version of %s that fits, with this or before"):format(entry[1]) })
    end
  end
  return true, all
end

---@param native mpreg.check.Native
return function(native)
  package.loaded["mpreg.worker"] = stand_in(native)
  local module = require "mpreg.runtime.module"
  require("mpreg.runtime.sandbox").protect()
  jit.off() -- compiled code would not heed the deadline
  -- What all modules need is there before the first one comes.
  for _, name in ipairs { "mpreg.runtime.failure", "mpreg.pipeline", "mpreg.codec" } do
    require(name)
  end
  native.send(check(native, module))
end
