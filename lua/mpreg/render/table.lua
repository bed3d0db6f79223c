--- Tables of text that line up.

local text = require "mpreg.render.text"

local M = {}

local GAP = "  "

--- Cells are cleaned. In a terminal (with `width`) the widest left-aligned column that is not
--- `whole` gives way until the rows fit; in a pipe nothing is ever cut. `styles` of a column: the
--- colour of a cell with that text.
---@param columns { title: string, align?: "left"|"right", whole?: boolean,
---  styles?: table<string, string> }[]
---@param rows string[][]
---@param opts? { width?: number, color?: boolean }
---@return string lines  each ends with a newline
function M.render(columns, rows, opts)
  opts = opts or {}
  local paint = text.painter(opts.color)
  local widths, total = {}, -#GAP
  local cells = {}
  for i, column in ipairs(columns) do widths[i] = text.width(column.title) end
  for r, row in ipairs(rows) do
    cells[r] = {}
    for i = 1, #columns do
      cells[r][i] = text.clean(row[i] == nil and "" or row[i])
      widths[i] = math.max(widths[i], text.width(cells[r][i]))
    end
  end
  for i = 1, #columns do total = total + widths[i] + #GAP end

  while opts.width and total > opts.width do
    local widest
    for i, column in ipairs(columns) do
      if column.align ~= "right" and not column.whole
        and (not widest or widths[i] > widths[widest]) then
        widest = i
      end
    end
    local least = widest and text.width(columns[widest].title)
    if not widest or widths[widest] <= math.max(least, 8) then break end
    widths[widest] = widths[widest] - 1
    total = total - 1
  end

  local out = {}
  local function add(get, style)
    local parts = {}
    for i, column in ipairs(columns) do
      local cell = text.cut(get(i), widths[i])
      local cell_style = not style and column.styles and column.styles[cell]
      local space = (" "):rep(widths[i] - text.width(cell))
      if cell_style then cell = paint(cell_style, cell) end
      parts[i] = column.align == "right" and space .. cell or cell .. space
    end
    local line = table.concat(parts, GAP):gsub(" +$", "")
    out[#out + 1] = style and paint(style, line) or line
  end
  add(function(i) return columns[i].title end, "bold")
  for r = 1, #rows do add(function(i) return cells[r][i] end) end
  return table.concat(out, "\n") .. "\n"
end

return M
