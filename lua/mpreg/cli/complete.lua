--- `mpreg complete`: what may stand at the cursor of a command line. The completions of bash, zsh
--- and fish (folder `completion`) ask it, so that they are one.
---
--- It prints a line for each candidate, with its help behind a tab. Where files may stand, a line
--- `:files` or `:folders` tells the shell to add them; behind the tab is the part of the word that
--- stands before the path, such as `--input=@`. It is silent and quick whatever happens: what
--- cannot be known now is not offered.
---
--- What may stand somewhere follows from the commands' own descriptions (mpreg.cli.args): flags,
--- and for arguments and values their names and metavars, or what `complete` says instead:
---
---     "json|text"                  these words
---     "FUN", "NODE", …             a kind of name, see KINDS
---     "PATH", "FILE…", "DIR"       files, or folders
---     "JSON|@FILE|-"               files after an @
---     { call = "FUN", … }          depends on the argument before it
---     false                        nothing
---
--- A node is asked only where names are wanted that it alone knows.

local args = require "mpreg.cli.args"
local exit = require "mpreg.cli.exit"

local M = {}

-- Somebody waits with a finger on a key.
local LIVE_TIMEOUT_MS = 200
local GIVE_UP_MS = 250
local NODES_MAX = args.NODE.many
local NODES_NAMED_MAX = 3
local RUNS_MAX = 20
local ADDRESS_BYTES_MAX = 300

M.command = {
  name = "complete",
  usage = "-- [WORD…]",
  summary = "Print what may stand at the end of a command line.",
  description = "Prints what may stand at the end of a command line: a candidate a line, its help "
    .. "behind a tab. A line :files or :folders stands for paths; behind its tab is what precedes "
    .. "the path in the word. The completions of bash, zsh and fish ask it.",
  examples = "  mpreg complete -- call mpreg.ec",
  arguments = {
    { "WORD", "The words after mpreg; the last is the one at the cursor, empty or not.",
      count = "*" },
  },
  flags = { args.HELP },
}

-- What may stand before a command, and the command.
local ROOT = {
  arguments = { { "COMMAND" } },
  flags = { args.TIMEOUT, args.NODE, args.OUTPUT, args.HELP,
    { "--version", false, "Show the version." } },
}
local HELP = { arguments = { { "COMMAND" } }, flags = {} }

-- ------------------------------------------------------------------------------------------------
-- The words before the cursor
-- ------------------------------------------------------------------------------------------------

local function note(seen, flag, value)
  seen.flags[flag] = true
  if not flag[2] then return end
  if value == nil then
    seen.pending = flag
    return
  end
  local key = args.key_of(flag[1])
  seen.values[key] = seen.values[key] or {}
  table.insert(seen.values[key], value)
end

--- The flags of a word such as `-ab` or `-ojson`.
local function note_short(seen, spellings, word)
  for k = 2, #word do
    local flag = spellings["-" .. word:sub(k, k)]
    if not flag then return end
    note(seen, flag, k < #word and word:sub(k + 1) or nil)
    if flag[2] then return end
  end
end

--- Reads words as `args.parse` does, but passes over what is wrong: `given`, the arguments, and
--- `places` where they stand; `flags` that occur; `values` by key; `pending`, the flag whose value
--- comes next; `is_ended` after `--`.
local function scan(command, words)
  local spellings = args.spellings(command)
  local seen = { given = {}, places = {}, flags = {}, values = {} }
  for i, word in ipairs(words) do
    if seen.is_ended or not args.is_flag(word) then
      if seen.pending then
        note(seen, seen.pending, word)
        seen.pending = nil
      else
        seen.given[#seen.given + 1] = word
        seen.places[#seen.places + 1] = i
      end
    elseif word == "--" then
      seen.is_ended, seen.pending = true, nil
    elseif word:sub(1, 2) == "--" then
      seen.pending = nil
      local alias, value = word:match("^(%-%-[^=]*)=(.*)$")
      local flag = spellings[alias or word]
      if flag then note(seen, flag, value) end
    else
      seen.pending = nil
      note_short(seen, spellings, word)
    end
  end
  return seen
end

-- ------------------------------------------------------------------------------------------------
-- Candidates
-- ------------------------------------------------------------------------------------------------

-- `text` is the word at the cursor, or of `--flag=text` the value; `prefix` what stands before it.
local Offers = {}
Offers.__index = Offers

function Offers:add(word, help)
  if word:sub(1, #self.text) ~= self.text or self.known[word] then return end
  self.known[word] = true
  self[#self + 1] = { self.prefix .. word, help or "" }
end

local function some(names)
  return require "mpreg.render.text".few(names or {}, NODES_NAMED_MAX)
end

--- What a node tells, or an empty list. `options`: of the question.
local function ask(self, what, list, options)
  local answer = self.ask(what, self.seen.values.node, options)
  return type(answer) == "table" and type(answer[list]) == "table" and answer[list] or {}
end

local function functions(self)
  local first_sentence = require "mpreg.cli.functions".first_sentence
  for _, fun in ipairs(ask(self, "functions", "functions")) do
    self:add(fun.name, first_sentence(fun.doc))
  end
end

--- Nodes with a property, and their state and address.
local function nodes(self, is_wanted)
  for _, node in ipairs(ask(self, "nodes", "nodes")) do
    if is_wanted(node) then self:add(node.name, ("%s, %s"):format(node.state, node.addr)) end
  end
end

local function is_live(node) return require "mpreg.render.members".is_live(node) end
local function is_gone(node) return not is_live(node) end

--- Names that nodes have in common, such as resources, and who has them.
local function names_of_nodes(self, names_of)
  local owners, list = {}, {}
  for _, node in ipairs(ask(self, "nodes", "nodes")) do
    for _, name in ipairs(is_live(node) and names_of(node) or {}) do
      if not owners[name] then
        owners[name] = {}
        list[#list + 1] = name
      end
      table.insert(owners[name], node.name)
    end
  end
  for _, name in ipairs(list) do self:add(name, "on " .. some(owners[name])) end
end

-- Kinds of names: what they are called in a command's description → adds them.
local KINDS = {
  COMMAND = function(self)
    for _, command in ipairs(require "mpreg.cli".commands()) do self:add(command[1], command[2]) end
  end,
  FUN = functions,
  PATTERN = function(self)
    for _, fun in ipairs(ask(self, "functions", "functions")) do
      local module = fun.name:match("^(.+)%.")
      if module then self:add(module .. ".*", "The functions of " .. module .. ".") end
    end
    functions(self)
  end,
  MODULE = function(self)
    for _, module in ipairs(ask(self, "modules", "modules")) do
      self:add(module.name, ("%s, on %s"):format(module.version, some(module.nodes)))
    end
  end,
  -- Those that can be rolled back, undeployed, looked up: modules and pipelines.
  ["MODULE (live)"] = function(self)
    for _, list in ipairs { "modules", "pipelines" } do
      for _, module in ipairs(ask(self, "modules", list)) do
        if module.origin == "deployed" and module.live ~= false then
          self:add(module.name, ("%s, on %s"):format(list == "modules" and module.version
            or "pipeline", some(module.nodes)))
        end
      end
    end
  end,
  PIPELINE = function(self)
    self.files = self.prefix
    if self.text:find("^[%w_.-]*$") and not self.text:find("^%.") then
      for _, pipeline in ipairs(ask(self, "modules", "pipelines")) do
        self:add(pipeline.name, "pipeline, on " .. some(pipeline.nodes))
      end
    end
  end,
  NODE = function(self) nodes(self, is_live) end,
  -- Those that can be forgotten; while there are none, who is there at all.
  ["NODE (gone)"] = function(self)
    nodes(self, is_gone)
    if #self == 0 then nodes(self, is_live) end
  end,
  -- Of the node that is asked, the newest first.
  RUN = function(self)
    self:add("last", "the newest run of all")
    local moment = require "mpreg.render.deploy".moment
    for _, run in ipairs(ask(self, "runs", "runs", { limit = RUNS_MAX })) do
      local name = type(run.name) == "string" and run.name or "a graph"
      self:add(run.run_id, ("%s, %s, %s"):format(name, run.status, moment(run.started_at)))
    end
  end,
  -- Steps of the run that is named.
  STEP = function(self)
    local id = self.seen.given[1]
    if id == "last" then
      local newest = ask(self, "runs", "runs", { limit = 1 })[1]
      id = newest and newest.run_id
    end
    for _, step in ipairs(id and ask(self, "trace", "steps", { run = id }) or {}) do
      self:add(step.name, ("%s, %s"):format(step.call, step.status))
    end
  end,
  ["HOST:PORT"] = function(self)
    for _, node in ipairs(ask(self, "nodes", "nodes")) do
      if is_live(node) then self:add(node.addr, ("%s, %s"):format(node.name, node.state)) end
    end
  end,
  RESOURCE = function(self)
    names_of_nodes(self, function(node) return node.resources end)
  end,
  ID = function(self)
    names_of_nodes(self, function(node) return { node.cluster } end)
  end,
  -- Versions of the module that is named, to which it can be rolled back.
  ["VERSION (earlier)"] = function(self)
    local name = self.seen.given[1]
    if not name then return end
    local entries = ask(self, "history", "entries", { module = name })
    for _, v in ipairs(require "mpreg.render.deploy".versions { entries = entries }) do
      self:add(v.version, ("%s, deployed %s"):format(v.hash, v.at))
    end
  end,
  -- Versions of the function that is called.
  CONSTRAINT = function(self)
    local given = {}
    for _, word in ipairs(self.seen.given) do given[word] = true end
    if not next(given) then return end
    for _, fun in ipairs(ask(self, "functions", "functions")) do
      if given[fun.name] then
        self:add(fun.version, ("%s, on %s"):format(fun.name, some(fun.nodes)))
      end
    end
  end,
  -- Of a function: mostly JSON, often the name of a file, as it is or for its JSON.
  ARG = function(self)
    if self.text:sub(1, 1) == "@" then
      self.files = self.prefix .. "@"
    elseif not self.text:find("^[{%[\"]") then
      self.files = self.prefix
    end
  end,
}

--- Adds what may stand where a kind is wanted.
local function add_kind(self, kind)
  if not kind then return end
  if KINDS[kind] then return KINDS[kind](self) end
  if kind:find("^[%l_]+|[%l_|]+$") then
    for word in kind:gmatch("[%l_]+") do self:add(word) end
  elseif kind:find("@FILE", 1, true) then
    if self.text:sub(1, 1) == "@" then self.files = self.prefix .. "@" end
  elseif kind:find("^DIR") then
    self.folders = self.prefix
  elseif kind:find("^FILE") or kind:find("^PATH") then
    self.files = self.prefix
  end
end

local function kind_of(item, metavar, before)
  local kind = item.complete
  if kind == nil then return metavar end
  if type(kind) == "table" then return kind[before] end
  return kind
end

--- The value of a flag, of which `prefix` stands in the word before it.
local function add_value(self, flag, prefix)
  self.prefix, self.text = prefix, self.text:sub(#prefix + 1)
  add_kind(self, kind_of(flag, flag[2]))
end

local function add_flags(self, command)
  for _, flag in ipairs(command.flags) do
    if flag.many or not self.seen.flags[flag] then
      for alias in flag[1]:gmatch("%S+") do
        -- Where anything could stand, once is enough.
        if self.text ~= "" or #alias > 2 then self:add(alias, flag[3]) end
      end
    end
  end
end

local function add_argument(self, command)
  local given = self.seen.given
  local arguments = command.arguments or {}
  local argument = arguments[#given + 1]
  local last = arguments[#arguments]
  if not argument and last and (last.count == "*" or last.count == "+") then argument = last end
  if argument then
    add_kind(self, kind_of(argument, argument[1], given[#given]))
  elseif self.text == "" and not self.seen.is_ended then
    add_flags(self, command)
  end
end

--- Where the value begins in a word such as `-ojson`, and of which flag.
local function short_value(spellings, word)
  for k = 2, #word do
    local flag = spellings["-" .. word:sub(k, k)]
    if not flag then return nil end
    if flag[2] then return k < #word and flag or nil, word:sub(1, k) end
  end
end

local function add_all(self, command)
  local spellings = args.spellings(command)
  local word = self.text
  local is_flag = not self.seen.is_ended and args.is_flag(word)
  if self.seen.pending and not is_flag then return add_value(self, self.seen.pending, "") end
  if self.seen.is_ended or not (is_flag or word == "-") then return add_argument(self, command) end
  local prefix = word:match("^%-%-[^=]+=")
  local flag = prefix and spellings[prefix:sub(1, -2)]
  if not prefix and word:sub(1, 2) ~= "--" then flag, prefix = short_value(spellings, word) end
  if flag then
    if flag[2] then add_value(self, flag, prefix) end
  else
    add_flags(self, command)
  end
end

local has_declared = false

--- Ends the process without a word after so long (its status is the signal's number), unless it is
--- told 0 before. Only so can a lookup be given up for whose answer the resolver waits: before that
--- no connection is closed.
local function end_after(ms)
  local ffi = require "ffi"
  if not has_declared then
    ffi.cdef [[
      unsigned ualarm(unsigned first_us, unsigned interval_us);
      void *signal(int number, void (*handler)(int));
      void _exit(int status);
    ]]
    has_declared = true
  end
  local SIGALRM = 14
  if ms > 0 then ffi.C.signal(SIGALRM, ffi.C._exit) end
  ffi.C.ualarm(ms * 1000, 0)
end

--- Asks a node, quietly and not for long.
local function ask_node(what, node, question)
  if node then
    for _, address in ipairs(node) do
      if not args.address(address) or #address > ADDRESS_BYTES_MAX then return nil end
    end
    if #node > NODES_MAX then return nil end
  end
  local options = { node = node, timeout = LIVE_TIMEOUT_MS }
  end_after(GIVE_UP_MS)
  local answer = require "mpreg.cli.connection".ask(options, what, nil,
    question and { options = question })
  end_after(0)
  return answer and require "mpreg.codec".decode(answer)
end

--- The command whose words these are, and its words; the root without one, nil if it is unknown.
local function command_of(words)
  local root = scan(ROOT, words)
  local name = root.given[1]
  if not name then return ROOT, words end
  local rest = {}
  for i, word in ipairs(words) do
    if i ~= root.places[1] then rest[#rest + 1] = word end
  end
  if name == "help" then return HELP, rest end
  for _, command in ipairs(require "mpreg.cli".commands()) do
    if command[1] == name then return require("mpreg.cli." .. name).command, rest end
  end
end

--- What may stand in the place of the last of some words.
---@param words string[]  after the program's name; the last is the one at the cursor
---@param ask_live? fun(what: string, node?: string[], options?: table): table?  asks a node of the
---  cluster
---@return { [1]: string, [2]: string }[] candidates  and their help; `files` or `folders`: paths
---  too, behind that prefix
function M.candidates(words, ask_live)
  local before = { unpack(words, 1, #words - 1) }
  local offers = setmetatable({ prefix = "", text = words[#words] or "", known = {},
    ask = ask_live or ask_node }, Offers)
  local command, rest = command_of(before)
  if command then
    offers.seen = scan(command, rest)
    add_all(offers, command)
  end
  return offers
end

local function one_line(s)
  return (require "mpreg.render.text".clean((tostring(s):gsub("%s+", " "))))
end

--- Runs the command.
---@param options table
---@param output table
---@return number exit_code
function M.run(options, output)
  local offers = M.candidates(options.WORD)
  local lines = {}
  for i, offer in ipairs(offers) do lines[i] = one_line(offer[1]) .. "\t" .. one_line(offer[2]) end
  if offers.files then lines[#lines + 1] = ":files\t" .. offers.files end
  if offers.folders then lines[#lines + 1] = ":folders\t" .. offers.folders end
  lines[#lines + 1] = ""
  output:write(table.concat(lines, "\n"))
  return exit.OK
end

return M
