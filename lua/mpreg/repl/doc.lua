--- `:doc`: what the catalog says of a function, a module or a pipeline.

local suggest = require "mpreg.suggest"
local text = require "mpreg.render.text"

local M = {}

local NODES_MAX = 6

local function indent(words) return "  " .. text.clean(words, true):gsub("\n", "\n  ") end

local function function_page(fun, paint)
  local functions = require "mpreg.cli.functions"
  local out = { paint("bold", text.clean(functions.signature(fun))) }
  if type(fun.doc) == "string" and fun.doc ~= "" then out[#out + 1] = indent(fun.doc) end
  local names, width = {}, 0
  for i, param in ipairs(fun.params or {}) do
    local kind = type(param.type) == "string" and param.type ~= "" and ": " .. param.type or ""
    names[i] = text.clean(tostring(param.name) .. kind)
    width = math.max(width, text.width(names[i]))
  end
  for i, param in ipairs(fun.params or {}) do
    local doc = type(param.doc) == "string" and text.clean(param.doc) or ""
    out[#out + 1] = ("  %s  %s"):format(text.pad(names[i], width), doc):gsub("%s+$", "")
  end
  if type(fun.returns) == "string" and fun.returns ~= "" then
    out[#out + 1] = "  → " .. text.clean(fun.returns)
  end
  local facts = { ("version %s"):format(text.clean(fun.version or "?")),
    "on " .. text.clean(text.few(fun.nodes or {}, NODES_MAX)) }
  if #(fun.needs or {}) > 0 then
    facts[#facts + 1] = "needs " .. text.clean(table.concat(fun.needs, ", "))
  end
  out[#out + 1] = paint("dim", "  " .. table.concat(facts, " · "))
  return table.concat(out, "\n") .. "\n"
end

local function module_page(name, module, members, opts, paint)
  local functions = require "mpreg.cli.functions"
  local facts = {}
  if module then
    facts[1] = "version " .. text.clean(module.version or "?")
    facts[2] = text.clean(module.origin or "?")
    facts[3] = "on " .. text.clean(text.few(module.nodes or {}, NODES_MAX))
  end
  local out = { paint("bold", text.clean(name)) .. (module and "  " or "")
    .. paint("dim", table.concat(facts, " · ")) }
  if module and type(module.doc) == "string" and module.doc ~= "" then
    out[#out + 1] = indent(module.doc)
  end
  local rows = {}
  for i, fun in ipairs(members) do
    rows[i] = { functions.signature(fun), functions.first_sentence(fun.doc) }
  end
  local page = table.concat(out, "\n") .. "\n"
  if #rows == 0 then return page end
  return page .. require "mpreg.render.table".render({ { title = "FUNCTION" }, { title = "DOC" } },
    rows, opts)
end

local function named(list, name)
  for _, item in ipairs(list or {}) do
    if item.name == name then return item end
  end
end

--- The page of a name; nil and a hint if there is nothing of that name.
---@param name string
---@param functions table[]
---@param listed { modules: table[], pipelines?: table[] }
---@param opts? { width?: number, color?: boolean }
---@return string? page
---@return string? hint
function M.page(name, functions, listed, opts)
  local paint = text.painter(opts and opts.color)
  local fun = named(functions, name)
  if fun then return function_page(fun, paint) end
  local members, known, seen = {}, {}, {}
  local function know(word)
    if type(word) == "string" and not seen[word] then
      seen[word] = true
      known[#known + 1] = word
    end
  end
  for _, f in ipairs(functions) do
    know(f.name)
    know(f.module)
    if f.module == name then members[#members + 1] = f end
  end
  local module = named(listed.modules, name)
  if module or #members > 0 then return module_page(name, module, members, opts, paint) end
  local pipeline = named(listed.pipelines, name)
  if pipeline then
    local doc = type(pipeline.doc) == "string" and pipeline.doc ~= ""
      and indent(pipeline.doc) .. "\n" or ""
    return ("%s  %s\n%s"):format(paint("bold", text.clean(name)), paint("dim", "pipeline · on "
      .. text.clean(text.few(pipeline.nodes or {}, NODES_MAX))), doc)
  end
  for _, m in ipairs(listed.modules or {}) do know(m.name) end
  for _, p in ipairs(listed.pipelines or {}) do know(p.name) end
  local near = suggest.nearest(name, known)
  return nil, near and ("did you mean %s?"):format(near) or ":functions lists what there is"
end

return M
