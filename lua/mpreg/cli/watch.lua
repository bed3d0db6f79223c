--- Deploying again on each save: of `mpreg deploy --watch` and `mpreg dev`.
---
--- Files that are saved within 50 ms are one deploy, so that an editor's temporary files and "save
--- all" are. A file counts as saved once it was closed after writing, or renamed to its name: never
--- half written. What is to be deployed is always read anew as a whole; a module whose file is gone
--- is undeployed, if it was this watch that deployed it.

local change = require "mpreg.cli.change"
local codec = require "mpreg.codec"
local exit = require "mpreg.cli.exit"
local json = require "mpreg.cli.json"
local native = require "mpreg.native"
local render = require "mpreg.render.deploy"
local text = require "mpreg.render.text"
local unit = require "mpreg.unit"

local M = {}

local SETTLE_S = 0.05
local SETTLE_S_MAX = 0.5 -- whatever else is saved meanwhile
local RETRY_S = 1        -- while no node can be reached, or a folder is gone
local NAMED_MAX = 3      -- modules on one line; of the others the number

local Watch = {}
Watch.__index = Watch

--- A watch that has done nothing yet.
---@param paths string[]
---@param opts { jobs: table, output: table, connect: fun(): table?, table|fun(): number?,
---  query?: table }  connect: as connection.open; query: options of each deploy
---@return table
function M.new(paths, opts)
  return setmetatable({
    paths = paths, jobs = opts.jobs, output = opts.output, connect = opts.connect,
    query = opts.query or {}, watched = {}, deployed = {}, is_dirty = true,
  }, Watch)
end

-- ------------------------------------------------------------------------------------------------
-- What changes
-- ------------------------------------------------------------------------------------------------

local function parent_of(path)
  local parent = path:gsub("/+$", ""):match("^(.*/)[^/]*$")
  return parent and (parent:gsub("(.)/+$", "%1")) or "."
end

--- Watches a folder; true if it was not watched before. `only`: the one file that counts in it.
local function watch_folder(self, path, only)
  local number, problem = self.jobs:watch(path)
  if not number then
    self.problem = ("%s cannot be watched: %s"):format(path, problem)
    return false
  end
  local known = self.watched[number]
  if known and (not known.only or only and known.only[only]) then return false end
  if not known then
    known = { path = path, only = only and {} or nil }
    self.watched[number] = known
  end
  if only then known.only[only] = true else known.only = nil end
  return true
end

--- Watches all that counts; true if something is watched that was not.
local function watch_all(self, folders)
  local is_new = false
  self.problem = nil
  for _, path in ipairs(self.paths) do
    local stat = native.stat(path)
    if stat and stat.type ~= "folder" then
      is_new = watch_folder(self, parent_of(path), path:match("[^/]+$")) or is_new
    end
  end
  for _, path in ipairs(folders) do is_new = watch_folder(self, path) or is_new end
  return is_new
end

local function is_link(path)
  local folder, real = native.realpath(parent_of(path)), native.realpath(path)
  return folder and real and real ~= (folder == "/" and "" or folder) .. "/" .. path:match("[^/]+$")
end

--- Whether an event may have changed what is to be deployed, and whether somebody saved it.
local function meaning(self, event)
  if event.kind == "lost" then return true, false end
  local folder = self.watched[event.watch]
  if not folder then return false end
  local name = event.name
  if folder.only then
    if not folder.only[name] then return false end
    return event.kind ~= "made", event.kind == "saved"
  end
  if not unit.is_wanted(name) then return false end
  local is_lua = name:find("%.lua$") ~= nil
  if event.kind == "saved" then return is_lua, is_lua end
  if event.kind == "gone" then return true, false end
  -- A new file is there once it is saved.
  local path = folder.path .. "/" .. name
  local stat = native.stat(path)
  return stat ~= nil and (stat.type == "folder" or is_lua and is_link(path) or false), false
end

--- Takes an event of the jobs; false if it is none of files.
---@param event table
---@return boolean
function Watch:take(event)
  if not (event.kind == "lost" or event.watch) then return false end
  local is_relevant, is_saved = meaning(self, event)
  if event.kind == "lost" and event.watch then self.watched[event.watch] = nil end
  if is_relevant then
    self.is_dirty = self.is_dirty or is_saved
    self:schedule(SETTLE_S)
  end
  return true
end

--- Looks again in so many seconds.
function Watch:schedule(seconds)
  local now = native.now()
  self.first = self.first or now
  self.at = math.min(now + seconds, math.max(self.first + SETTLE_S_MAX, now))
  if seconds > SETTLE_S_MAX then self.at = now + seconds end
end

--- Milliseconds until it is time to look; nil if nothing happened.
---@return number?
function Watch:due()
  return self.at and math.max(0, math.ceil((self.at - native.now()) * 1000))
end

-- ------------------------------------------------------------------------------------------------
-- What is told
-- ------------------------------------------------------------------------------------------------

local function print_line(self, line)
  local paint = text.painter(self.output.color)
  self.output:write(("%s  %s\n"):format(paint("dim", os.date("%H:%M:%S")), line))
  self.output:flush()
end

local function print_json(self, bytes)
  self.output:write((assert(json.encode(bytes))) .. "\n")
  self.output:flush()
end

--- The nodes of an answer in a few words: `3 nodes`, `2 nodes, n3 behind`.
local function nodes_text(nodes)
  local live, others = 0, {}
  for _, node in ipairs(type(nodes) == "table" and nodes or {}) do
    if node.state == "live" then
      live = live + 1
    else
      others[#others + 1] = ("%s %s"):format(text.clean(node.node), text.clean(node.state))
    end
  end
  table.insert(others, 1, text.count(live, "node"))
  return text.few(others, NAMED_MAX + 1)
end

--- A deploy as one line: `deployed quakes 1.2.0+3fa9c1d2, geo 1.0.0+… · 3 nodes · 12.3 ms`.
---@param action "deploy"|"undeploy"
---@param answer table
---@param opts? { color?: boolean }
---@return string
function M.line(action, answer, opts)
  local paint = text.painter(opts and opts.color)
  local changed = {}
  for _, module in ipairs(render.modules(answer)) do
    local is_same = answer.unchanged == true
      or type(module.hash) == "string" and module.hash == module.previous
    if not is_same or action == "undeploy" then
      local name = text.clean(module.module or "?")
      local version = type(module.version) == "string" and " " .. text.clean(module.version) or ""
      changed[#changed + 1] = (module.kind == "pipeline" and "pipeline " or "") .. name
        .. (action == "deploy" and version or "")
    end
  end
  local what = #changed == 0 and paint("dim", "unchanged")
    or paint("green", action == "deploy" and "deployed" or "undeployed") .. " "
      .. text.few(changed, NAMED_MAX)
  local time = type(answer.ms) == "number" and " · " .. text.duration(answer.ms) or ""
  return ("%s · %s%s"):format(what, nodes_text(answer.nodes), time)
end

--- A failure as one line.
---@param err table
---@param opts? { color?: boolean, end_text?: string }
---@return string
function M.error_line(err, opts)
  local name = text.clean(err.code or "UNKNOWN")
  if err.reason then name = name .. "/" .. text.clean(err.reason) end
  local where = type(err.node) == "string" and " · on " .. text.clean(err.node) or ""
  return ("%s %s: %s%s · %s"):format(text.painter(opts and opts.color)("bold red", "error:"), name,
    text.clean((tostring(err.message):gsub("\n+$", ""))), where,
    opts and opts.end_text or "the old version stays")
end

local function is_unchanged(answer)
  for _, module in ipairs(render.modules(answer)) do
    if module.hash ~= module.previous then return false end
  end
  return true
end

local function tell(self, action, answer)
  if self.output.json then return print_json(self, answer) end
  print_line(self, M.line(action, codec.decode(answer), { color = self.output.color }))
end

local function tell_error(self, err, end_text)
  if self.output.json then return print_json(self, codec.encode { error = err }) end
  print_line(self, M.error_line(err, { color = self.output.color, end_text = end_text }))
end

-- ------------------------------------------------------------------------------------------------
-- Deploying
-- ------------------------------------------------------------------------------------------------

local function is_unreachable(err)
  return err.code == "UNAVAILABLE" and exit.of_deploy(err) == exit.UNSERVED
    or err.reason == "CONNECTION_LOST" or err.reason == "NODE_LOST"
end

--- What tells a module of an answer from a pipeline of its name.
local function key_of(module)
  return (module.kind == "pipeline" and "pipeline " or "module ") .. module.module
end

-- Somebody else was quicker.
local GONE = { UNKNOWN_MODULE = true, NOT_DEPLOYED = true }

--- What was deployed and is not to be any more.
local function gone(self, wanted)
  local keys = {}
  for key in pairs(self.deployed) do
    if not wanted[key] then keys[#keys + 1] = key end
  end
  table.sort(keys)
  return keys
end

--- Undeploys it. ERROR if that failed.
local function undeploy_gone(self, c, wanted)
  for _, key in ipairs(gone(self, wanted)) do
    local kind, name = key:match("^(%S+) (.*)$")
    if self.query.only or self.query.skip then
      self.output:note(("%s has no file any more, but stays live: mpreg undeploy %s"):format(name,
        name))
    else
      local answer, err = change.ask(c, "undeploy", { options = { module = name, kind = kind } })
      if not answer and not GONE[err.reason] then return err end
      if answer then tell(self, "undeploy", answer) end
    end
    self.deployed[key] = nil
  end
end

--- Sends the modules (none: those that were deployed are undeployed). ERROR if that failed.
local function send(self, modules, bytes)
  local c, err = self.connect()
  if not c then return err end
  local left = type(err) == "function" and err() or nil
  local wanted = {}
  if #modules > 0 then
    local options = { force = true }
    for key, value in pairs(self.query) do options[key] = value end
    local answer
    answer, err = change.ask(c, "deploy",
      { options = options, payload = bytes, timeout_ms = left })
    if not answer then
      c:close()
      return err
    end
    local decoded = codec.decode(answer)
    for _, module in ipairs(render.modules(decoded)) do
      if type(module.module) == "string" then wanted[key_of(module)] = true end
    end
    -- Where a file is gone, that is the news.
    if self.output.json or not is_unchanged(decoded) or #gone(self, wanted) == 0 then
      tell(self, "deploy", answer)
    end
  end
  err = undeploy_gone(self, c, wanted)
  for key in pairs(wanted) do self.deployed[key] = true end
  c:close()
  return err
end

--- Says what keeps it from being deployed, once.
local function refuse(self, err)
  local said = ("%s %s"):format(tostring(err.reason), tostring(err.message))
  if said ~= self.said or self.is_dirty then
    tell_error(self, err, err.reason == "EMPTY_UNIT" and "waiting for one" or nil)
  end
  self.said, self.is_dirty = said, false
  return err
end

--- Says that it was not deployed, and goes on trying if nobody was there.
local function fail(self, err)
  self.sent = nil
  if err.reason == "INTERRUPTED" then return err end
  if not is_unreachable(err) then
    tell_error(self, err)
    return err
  end
  if not self.is_cut_off then tell_error(self, err, "trying again") end
  self.is_cut_off = true
  self:schedule(RETRY_S)
  return err
end

--- Looks, and deploys what is new. Whatever went wrong is told.
---@return table? ERROR
function Watch:look()
  self.at, self.first = nil, nil
  local modules, err, folders = unit.collect(self.paths)
  if watch_all(self, folders) then self:schedule(SETTLE_S) end
  if self.problem and self.problem ~= self.told_problem then self.output:note(self.problem) end
  self.told_problem = self.problem
  if not modules and err.reason == "UNREADABLE" then
    -- An editor may be about to put a file in the place of another. A folder may come back, and
    -- nobody would tell.
    local is_patient = self.is_patient
    self.is_patient = true
    self:schedule(is_patient and RETRY_S or SETTLE_S)
    if not is_patient then return nil end
    return refuse(self, err)
  end
  self.is_patient = false
  -- Where there were modules, none at all are what is to be live.
  if not modules and err.reason == "EMPTY_UNIT" and next(self.deployed) then modules = {} end
  if not modules then return refuse(self, err) end
  err = unit.check(modules)
  if err then return refuse(self, err) end
  local bytes = unit.encode(modules)
  if bytes == self.sent and not (self.is_dirty or self.said) then return nil end
  err = send(self, modules, bytes)
  self.is_dirty = false
  if err then return fail(self, err) end
  self.sent, self.said, self.is_cut_off = bytes, nil, false
  return nil
end

--- Runs `mpreg deploy --watch`.
---@param paths string[]
---@param options table  of the command line
---@param output table
---@return number exit_code
function M.run(paths, options, output)
  local jobs = native.jobs()
  local connection = require "mpreg.cli.connection"
  local self = M.new(paths, {
    jobs = jobs, output = output, query = require "mpreg.cli.deploy".query_options(options),
    connect = function() return connection.open(options) end,
  })
  local modules, err = unit.collect(paths)
  local c, problem
  if modules then c, problem = connection.open(options) end
  if not c then
    jobs:close()
    return output:fail(problem or err)
  end
  c:close()
  local failure = self:look()
  local code = failure and failure.reason == "INTERRUPTED" and exit.INTERRUPTED or nil
  while not code do
    local event = jobs:wait(self:due())
    if event and event.kind == "signal" then
      code = 128 + event.number
    elseif event then
      self:take(event)
    else
      failure = self:look()
    end
    if failure and failure.reason == "INTERRUPTED" then code = exit.INTERRUPTED end
  end
  jobs:close()
  return code
end

return M
