--- Statistics of lists of numbers.
---
--- Each function takes plain lists and refuses, by name and place, what is not a number; null and
--- NaN are not numbers here. What cannot be computed (the mean of nothing) is an error, never NaN.

local stats = { _VERSION = "1.0.0" }

local function invalid(message, ...)
  error({ code = "INVALID_ARGUMENT", message = message:format(...) }, 0)
end

local function name_of(value)
  local kind = type(value)
  if kind == "userdata" then return "null" end
  return value ~= value and "NaN" or kind
end

-- The list's numbers in a list of our own. 64-bit integers become doubles.
local function numbers(fun, values, least)
  if type(values) ~= "table" then
    invalid("stats.%s: a list of numbers is needed, not %s", fun, name_of(values))
  end
  local n = #values
  if n == 0 and next(values) ~= nil then
    invalid("stats.%s: a list of numbers is needed, not a map", fun)
  end
  if n == 0 and least > 0 then invalid("stats.%s: the list is empty", fun) end
  if n < least then invalid("stats.%s: %d numbers or more are needed, not %d", fun, least, n) end
  local list = {}
  for i = 1, n do
    local value = values[i]
    if type(value) == "cdata" then value = tonumber(value) end
    if type(value) ~= "number" or value ~= value then
      invalid("stats.%s: element %d must be a number, not %s", fun, i, name_of(values[i]))
    end
    list[i] = value
  end
  return list, n
end

local function pairs_of(fun, xs, ys, least)
  local a, n = numbers(fun, xs, least)
  local b, m = numbers(fun, ys, least)
  if n ~= m then invalid("stats.%s: the lists differ in length: %d and %d", fun, n, m) end
  return a, b, n
end

-- Neumaier's compensated sum: many small numbers beside a large one are not lost.
local function total(list, n)
  local sum, lost = 0, 0
  for i = 1, n do
    local x = list[i]
    local next_sum = sum + x
    if math.abs(sum) >= math.abs(x) then
      lost = lost + ((sum - next_sum) + x)
    else
      lost = lost + ((x - next_sum) + sum)
    end
    sum = next_sum
  end
  if lost ~= lost then return sum end   -- an infinity is among them
  return sum + lost
end

local function centred(list, n)
  local mean = total(list, n) / n
  local rest = {}
  for i = 1, n do rest[i] = list[i] - mean end
  return rest, mean
end

local function products(a, b, n)
  local list = {}
  for i = 1, n do list[i] = a[i] * b[i] end
  return total(list, n)
end

-- Of a sorted list: linear between the closest ranks (type 7 of Hyndman & Fan, as in R and NumPy).
local function quantile_of(sorted, n, q)
  local place = 1 + (n - 1) * q
  local low = math.floor(place)
  local fraction = place - low
  if fraction == 0 then return sorted[low] end
  return sorted[low] + (sorted[low + 1] - sorted[low]) * fraction
end

local function sorted_numbers(fun, values, least)
  local list, n = numbers(fun, values, least)
  table.sort(list)
  return list, n
end

--- Sum; of nothing it is 0.
---@param values number[]
---@return number
function stats.sum(values)
  return total(numbers("sum", values, 0))
end

--- Arithmetic mean.
---@param values number[]
---@return number
function stats.mean(values)
  local list, n = numbers("mean", values, 1)
  return total(list, n) / n
end

--- Mean weighted by a second list of the same length; weights are not negative.
---@param values number[]
---@param weights number[]
---@return number
function stats.weighted_mean(values, weights)
  local list, w, n = pairs_of("weighted_mean", values, weights, 1)
  for i = 1, n do
    if w[i] < 0 then invalid("stats.weighted_mean: weight %d is negative", i) end
  end
  local weight = total(w, n)
  if weight == 0 then invalid("stats.weighted_mean: all weights are zero") end
  return products(list, w, n) / weight
end

--- The smallest number.
---@param values number[]
---@return number
function stats.min(values)
  local list, n = numbers("min", values, 1)
  local least = list[1]
  for i = 2, n do least = math.min(least, list[i]) end
  return least
end

--- The largest number.
---@param values number[]
---@return number
function stats.max(values)
  local list, n = numbers("max", values, 1)
  local most = list[1]
  for i = 2, n do most = math.max(most, list[i]) end
  return most
end

--- The middle number; of an even count, the mean of the middle two.
---@param values number[]
---@return number
function stats.median(values)
  local list, n = sorted_numbers("median", values, 1)
  return quantile_of(list, n, 0.5)
end

--- The value below which a share `q` of the numbers lies, linear between the closest ranks (as R
--- and NumPy do unless told otherwise).
---@param values number[]
---@param q number  from 0 to 1
---@return number
function stats.quantile(values, q)
  if type(q) ~= "number" or not (q >= 0 and q <= 1) then
    invalid("stats.quantile: q must be a number from 0 to 1")
  end
  local list, n = sorted_numbers("quantile", values, 1)
  return quantile_of(list, n, q)
end

--- The most frequent numbers, in ascending order: several if they are equally frequent.
---@param values number[]
---@return number[]
function stats.modes(values)
  local list, n = sorted_numbers("modes", values, 1)
  local modes, most, run = {}, 0, 0
  for i = 1, n do
    run = i > 1 and list[i] == list[i - 1] and run + 1 or 1
    if run > most then
      modes, most = { list[i] }, run
    elseif run == most then
      modes[#modes + 1] = list[i]
    end
  end
  return modes
end

--- Sample variance (divided by n - 1) of two numbers or more.
---@param values number[]
---@return number
function stats.variance(values)
  local list, n = numbers("variance", values, 2)
  local rest = centred(list, n)
  return products(rest, rest, n) / (n - 1)
end

--- Sample standard deviation (from n - 1) of two numbers or more.
---@param values number[]
---@return number
function stats.stddev(values)
  local list, n = numbers("stddev", values, 2)
  local rest = centred(list, n)
  return math.sqrt(products(rest, rest, n) / (n - 1))
end

--- What there is to say about a list at a glance; `stddev` is 0 for a single number.
---@param values number[]
---@return table  { count, sum, mean, stddev, min, q1, median, q3, max }
function stats.summary(values)
  local list, n = sorted_numbers("summary", values, 1)
  local sum = total(list, n)
  local rest = centred(list, n)
  return {
    count = n, sum = sum, mean = sum / n,
    stddev = n > 1 and math.sqrt(products(rest, rest, n) / (n - 1)) or 0,
    min = list[1], q1 = quantile_of(list, n, 0.25), median = quantile_of(list, n, 0.5),
    q3 = quantile_of(list, n, 0.75), max = list[n],
  }
end

local function edges(list, n, opts)
  local low, high = opts.min, opts.max
  for _, name in ipairs { "min", "max" } do
    local bound = opts[name]
    if bound ~= nil and (type(bound) ~= "number" or bound - bound ~= 0) then
      invalid("stats.histogram: %s must be a finite number", name)
    end
  end
  if n == 0 and not (low and high) then
    invalid("stats.histogram: the list is empty; give min and max")
  end
  low, high = low or list[1], high or list[n]
  if high - low ~= high - low or high - low == math.huge then
    invalid("stats.histogram: the numbers must be finite")
  end
  if low > high then invalid("stats.histogram: min is above max") end
  if low == high then low, high = low - 0.5, high + 0.5 end
  return low, high
end

--- Counts numbers in bins of equal width. A bin holds its lower edge but not its upper one, the
--- last one both. Numbers outside `min` and `max` are not counted.
---@param values number[]
---@param bins? integer  how many; 10 if left out
---@param opts? table    { min, max }: the list's own if left out
---@return table[]  of { from, to, count }
function stats.histogram(values, bins, opts)
  bins, opts = bins or 10, opts or {}
  if type(bins) ~= "number" or bins % 1 ~= 0 or bins < 1 or bins > 100000 then
    invalid("stats.histogram: bins must be a whole number from 1 to 100000")
  end
  if type(opts) ~= "table" then invalid("stats.histogram: the options must be a map") end
  local list, n = sorted_numbers("histogram", values, 0)
  local low, high = edges(list, n, opts)
  local function edge(i) return i == bins and high or low + (high - low) * (i / bins) end
  local histogram = {}
  for i = 1, bins do histogram[i] = { from = edge(i - 1), to = edge(i), count = 0 } end
  local bin = 1
  for i = 1, n do
    local value = list[i]
    if value >= low and value <= high then
      while bin < bins and value >= histogram[bin].to do bin = bin + 1 end
      histogram[bin].count = histogram[bin].count + 1
    end
  end
  return histogram
end

--- Sample covariance of two lists of the same length.
---@param xs number[]
---@param ys number[]
---@return number
function stats.covariance(xs, ys)
  local a, b, n = pairs_of("covariance", xs, ys, 2)
  return products(centred(a, n), (centred(b, n)), n) / (n - 1)
end

--- Pearson's coefficient of correlation, from -1 to 1.
---@param xs number[]
---@param ys number[]
---@return number
function stats.correlation(xs, ys)
  local a, b, n = pairs_of("correlation", xs, ys, 2)
  a, b = centred(a, n), centred(b, n)
  local spread = math.sqrt(products(a, a, n)) * math.sqrt(products(b, b, n))
  if spread == 0 then invalid("stats.correlation: all numbers of one list are equal") end
  return math.max(-1, math.min(1, products(a, b, n) / spread))
end

--- Least-squares line y = intercept + slope · x; `r2` is the share of the variance it explains.
---@param xs number[]
---@param ys number[]
---@return table  { slope, intercept, r2, n }
function stats.linear_regression(xs, ys)
  local a, b, n = pairs_of("linear_regression", xs, ys, 2)
  local mean_x, mean_y
  a, mean_x = centred(a, n)
  b, mean_y = centred(b, n)
  local spread_x, spread_y = products(a, a, n), products(b, b, n)
  if spread_x == 0 then invalid("stats.linear_regression: all x are equal") end
  local together = products(a, b, n)
  local slope = together / spread_x
  return {
    slope = slope, intercept = mean_y - slope * mean_x, n = n,
    r2 = spread_y == 0 and 1 or math.min(1, together * together / (spread_x * spread_y)),
  }
end

--- Means of each `window` neighbours: n - window + 1 of them, none if the list is shorter.
---@param values number[]
---@param window integer  from 1
---@return number[]
function stats.moving_average(values, window)
  if type(window) ~= "number" or window % 1 ~= 0 or window < 1 then
    invalid("stats.moving_average: window must be a whole number from 1")
  end
  local list, n = numbers("moving_average", values, 0)
  local means, part = {}, {}
  for first = 1, n - window + 1 do
    for i = 1, window do part[i] = list[first + i - 1] end
    means[first] = total(part, window) / window
  end
  return means
end

--- How many standard deviations each number lies above the mean.
---@param values number[]
---@return number[]
function stats.z_scores(values)
  local list, n = numbers("z_scores", values, 2)
  local rest = centred(list, n)
  local deviation = math.sqrt(products(rest, rest, n) / (n - 1))
  if deviation == 0 then invalid("stats.z_scores: all numbers are equal") end
  for i = 1, n do rest[i] = rest[i] / deviation end
  return rest
end

stats._mpreg = {}
for name, fun in pairs(stats) do
  if type(fun) == "function" then stats._mpreg[name] = { idempotent = true } end
end

return stats
