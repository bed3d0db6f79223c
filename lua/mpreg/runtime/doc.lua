--- Reads the `---` comments (LuaCATS) of a module's source. Nothing is run or understood: a block
--- of comment lines belongs to the line of code that follows it, and whoever asks knows the line on
--- which a function begins.

local M = {}

---@class mpreg.doc.Block
---@field doc string?
---@field params { name: string, type: string?, doc: string? }[]
---@field returns string?

local CR = 13
local OPENING, CLOSING = { ["{"] = true, ["("] = true, ["<"] = true, ["["] = true },
  { ["}"] = true, [")"] = true, [">"] = true, ["]"] = true }

--- Splits "type rest": a type ends at a blank outside brackets, save around `|` and after `:`.
---@param text string
---@return string type
---@return string rest
function M.split_type(text)
  local depth, at = 0, 1
  while at <= #text do
    local c = text:sub(at, at)
    if c == '"' or c == "'" or c == "`" then
      at = text:find(c, at + 1, true) or #text
    elseif OPENING[c] then
      depth = depth + 1
    elseif CLOSING[c] then
      depth = depth - 1
    elseif c:find("%s") and depth <= 0 then
      local before, after = text:sub(1, at - 1), text:match("^%s*(.*)$", at)
      local goes_on = before:find("[|:]$") or after:find("^|")
      if not goes_on then
        return before, after
      end
    end
    at = at + 1
  end
  return text, ""
end

local function trim(text) return (text:match("^%s*(.-)%s*$")) end

--- Nothing rather than an empty text. A `#` or `@` before a remark is LuaCATS punctuation.
local function remark(text)
  text = trim(text:gsub("^%s*[#@]%s*", ""))
  return text ~= "" and text or nil
end

local function parse_param(block, text)
  local name, rest = text:match("^(%.%.%.)%s*(.*)$")
  if not name then
    name, rest = text:match("^([%a_][%w_]*%??)%s*(.*)$")
  end
  if not name then
    return nil
  end
  local kind, doc = M.split_type(rest)
  if name:sub(-1) == "?" then
    name = name:sub(1, -2)
    if kind ~= "" and kind:sub(-1) ~= "?" then
      kind = kind .. "?"
    end
  end
  local param = { name = name, type = kind ~= "" and kind or nil, doc = remark(doc) }
  block.params[#block.params + 1] = param
  return param
end

local TAGS = {
  param = parse_param,
  ["return"] = function(block, text)
    local kind = M.split_type(text)
    if not block.returns and kind ~= "" then
      block.returns = kind
    end
  end,
}

local function parse_block(lines)
  local block, text, target = { params = {} }, {}, nil
  for _, line in ipairs(lines) do
    local tag, rest = line:match("^%s*@(%a+)%s*(.*)$")
    if tag then
      target = TAGS[tag] and TAGS[tag](block, rest) or false
    elseif target == nil then
      text[#text + 1] = line
    elseif target and trim(line) ~= "" then
      target.doc = (target.doc and target.doc .. "\n" or "") .. trim(line)
    end
  end
  local doc = trim(table.concat(text, "\n"))
  block.doc = doc ~= "" and doc or nil
  return block
end

--- All blocks of a source, by the number of the line after each. Field `module` is the first block,
--- if the source begins with one that no function follows.
---@param source string
---@return table<integer|"module", mpreg.doc.Block>
function M.parse(source)
  local blocks, lines, number, at = {}, nil, 0, 1
  local has_code = false
  while at <= #source + 1 do
    local stop = source:find("\n", at, true) or #source + 1
    local line = source:sub(at, source:byte(stop - 1) == CR and stop - 2 or stop - 1)
    at = stop + 1
    number = number + 1
    local comment = line:match("^%s*%-%-%-(.*)$")
    if comment and comment:sub(1, 1) ~= "-" then
      lines = lines or {}
      lines[#lines + 1] = comment:gsub("^ ", "")
    else
      if lines then
        local block = parse_block(lines)
        blocks[number] = block
        if not has_code and not line:find("function", 1, true) then
          blocks.module = block
        end
        lines = nil
      end
      has_code = has_code or (line:find("%S") ~= nil and not line:find("^%s*%-%-")
        and not line:find("^%s*local%s+[%w_]+%s*=%s*require"))
    end
  end
  return blocks
end

return M
