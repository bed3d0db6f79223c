--- ERROR tables as text: what failed, where, and what to do about it.

local text = require "mpreg.render.text"

local M = {}

local CAUSES_MAX = 16

local function name_of(err)
  local code = text.clean(err.code or "UNKNOWN")
  return err.reason and ("%s/%s"):format(code, text.clean(err.reason)) or code
end

--- Where it happened, in one line; nil if nothing is known.
local function place_of(err)
  local parts = {}
  if err.step then
    parts[#parts + 1] = "step " .. text.clean(err.step)
      .. (err.index and ("[%s]"):format(tostring(err.index)) or "")
  end
  if err.fun then
    local version = err.version and " " .. text.clean(err.version) or ""
    parts[#parts + 1] = text.clean(err.fun) .. version
  end
  local is_known = #parts > 0
  if err.node then parts[#parts + 1] = "on " .. text.clean(err.node) end
  if err.attempt and tonumber(err.attempt) ~= 1 then
    parts[#parts + 1] = ("attempt %s"):format(tostring(err.attempt))
  end
  return parts[1] and (is_known and "in " or "") .. table.concat(parts, ", ")
end

local function add_frames(out, frames, paint)
  if type(frames) ~= "table" then return end
  for _, frame in ipairs(frames) do
    if type(frame) == "table" then
      local line = "  at " .. text.clean(frame.file or "?")
      if frame.line then line = line .. ":" .. tostring(frame.line) end
      if frame["function"] then line = line .. " in " .. text.clean(frame["function"]) end
      if frame.node then line = line .. paint("dim", " (" .. text.clean(frame.node) .. ")") end
      out[#out + 1] = line
    end
  end
end

local function add_faults(out, faults, paint)
  local rows, name_width, step_width = {}, 0, 0
  for i, fault in ipairs(faults) do
    rows[i] = {
      text.clean(fault.reason or fault.code or "?"), fault.step and text.clean(fault.step) or "",
      text.clean(fault.message or ""), fault.hint and text.clean(fault.hint),
    }
    name_width = math.max(name_width, text.width(rows[i][1]))
    step_width = math.max(step_width, text.width(rows[i][2]))
  end
  for _, row in ipairs(rows) do
    local line = "  " .. paint("yellow", text.pad(row[1], name_width))
    if step_width > 0 then line = line .. "  " .. text.pad(row[2], step_width) end
    line = line .. "  " .. row[3]
    if row[4] then line = line .. paint("dim", " (" .. row[4] .. ")") end
    out[#out + 1] = line
  end
end

--- The text of an ERROR, ending with a newline. The first line is `error: CODE/REASON: message`.
---@param err table
---@param opts? { color?: boolean }
---@return string
function M.text(err, opts)
  local paint = text.painter(opts and opts.color)
  local out = {}
  local label = "error"
  local depth = 0
  while type(err) == "table" and depth < CAUSES_MAX do
    local faults = type(err.faults) == "table" and #err.faults > 1 and err.faults
    out[#out + 1] = ("%s %s: %s"):format(paint("bold red", label .. ":"), name_of(err),
      text.clean(err.message or "", true))
    local place = place_of(err)
    if place and not faults then out[#out + 1] = "  " .. place end
    add_frames(out, err.traceback, paint)
    if faults then
      out[#out + 1] = ("%s:"):format(text.count(#faults, "fault"))
      add_faults(out, faults, paint)
    end
    if type(err.nodes) == "table" and type(err.nodes[1]) == "table" then
      local table_text = require "mpreg.render.deploy".nodes(err.nodes, opts)
      out[#out + 1] = ("  " .. table_text:gsub("\n$", ""):gsub("\n", "\n  "))
    end
    if err.hint and not faults then
      out[#out + 1] = paint("bold", "hint:") .. " " .. text.clean(err.hint, true)
    end
    err = err.cause
    label = "caused by"
    depth = depth + 1
  end
  return table.concat(out, "\n") .. "\n"
end

return M
