--- Points in time as Unix seconds (numbers, with fractions) or whole Unix milliseconds, and as
--- ISO 8601 texts. All is UTC and the proleptic Gregorian calendar, computed here: neither the
--- machine's time zone nor the range of its C library plays a part. Leap seconds are not counted,
--- as Unix does not.

local ffi = require "ffi"

local time = { _VERSION = "1.0.0" }

-- Under a name of our own, so that no other declaration of it can differ from this one.
ffi.cdef [[ int mpreg_time_gettimeofday(int64_t *pair, void *zone) __asm__("gettimeofday"); ]]

local DAY = 86400
local SECONDS = { ms = 0.001, second = 1, minute = 60, hour = 3600, day = DAY, week = 7 * DAY }
local MONTHS = { month = 1, quarter = 3, year = 12 }
local LATEST = 253402300799         -- 9999-12-31T23:59:59Z
local EARLIEST = -62167219200       -- 0000-01-01T00:00:00Z

local function invalid(message, ...)
  error({ code = "INVALID_ARGUMENT", message = message:format(...) }, 0)
end

local function name_of(value)
  return type(value) == "userdata" and "null" or type(value)
end

local function check_number(fun, value, what)
  if type(value) ~= "number" or value - value ~= 0 then
    invalid("time.%s: %s must be a finite number, not %s", fun, what, name_of(value))
  end
end

local function check_time(fun, seconds)
  check_number(fun, seconds, "the time")
  if seconds < EARLIEST or seconds >= LATEST + 1 then
    invalid("time.%s: %.0f seconds are not in the years 0 to 9999", fun, seconds)
  end
end

-- "hours" is as good as "hour".
local function check_unit(fun, unit)
  local name = type(unit) == "string" and unit:lower() or ""
  if not (SECONDS[name] or MONTHS[name]) then name = name:gsub("s$", "") end
  if SECONDS[name] or MONTHS[name] then return name end
  invalid("time.%s: the unit must be ms, second, minute, hour, day, week, month, quarter or year",
    fun)
end

-- Days since 1970-01-01 of a date, and back. Years are counted from March here, so that the day
-- that comes and goes is the last of its year, and in eras of 400 years, which all have 146,097
-- days.
local function days_of(year, month, day)
  local y = month <= 2 and year - 1 or year
  local era = math.floor(y / 400)
  local year_of_era = y - era * 400
  local day_of_year = math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  local day_of_era = year_of_era * 365 + math.floor(year_of_era / 4) - math.floor(year_of_era / 100)
    + day_of_year
  return era * 146097 + day_of_era - 719468
end

local function date_of(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local day_of_era = z - era * 146097
  local year_of_era = math.floor((day_of_era - math.floor(day_of_era / 1460)
    + math.floor(day_of_era / 36524) - math.floor(day_of_era / 146096)) / 365)
  local day_of_year = day_of_era
    - (365 * year_of_era + math.floor(year_of_era / 4) - math.floor(year_of_era / 100))
  local shifted = math.floor((5 * day_of_year + 2) / 153)
  local day = day_of_year - math.floor((153 * shifted + 2) / 5) + 1
  local month = (shifted + 2) % 12 + 1
  local year = year_of_era + era * 400
  return month <= 2 and year + 1 or year, month, day
end

local function is_leap(year)
  return year % 4 == 0 and (year % 100 ~= 0 or year % 400 == 0)
end

local function days_in(year, month)
  if month == 2 then return is_leap(year) and 29 or 28 end
  return (month == 4 or month == 6 or month == 9 or month == 11) and 30 or 31
end

-- Whole microseconds since 1970: what a double of our range of years holds.
local function microseconds(seconds)
  return math.floor(seconds * 1e6 + 0.5)
end

--- The time now, in Unix seconds with a fraction.
---@return number
function time.now()
  local pair = ffi.new("int64_t[2]")
  if ffi.C.mpreg_time_gettimeofday(pair, nil) ~= 0 then
    error({ code = "UNAVAILABLE", message = "time.now: this machine tells no time" }, 0)
  end
  return tonumber(pair[0]) + tonumber(pair[1]) / 1e6
end

--- The time now, in whole Unix milliseconds.
---@return integer
function time.now_ms()
  return math.floor(time.now() * 1000)
end

local function check_range(what, value, least, most)
  if value < least or value > most then
    return ("%s %d is not in %d to %d"):format(what, value, least, most)
  end
end

-- Hours, minutes, seconds and what follows them of the time of day in `s`, or nil.
local function clock_of(s)
  local hour, minute, rest = s:match("^(%d%d):(%d%d)(.*)$")
  if not hour then
    hour, minute, rest = s:match("^(%d%d)(%d%d)(.*)$")
  end
  if not hour then return nil end
  local second, fraction, zone = rest:match("^:?(%d%d)[.,](%d+)(.*)$")
  if not second then
    second, zone = rest:match("^:?(%d%d)(.*)$")
  end
  return tonumber(hour), tonumber(minute), tonumber(second or 0),
    tonumber("0." .. (fraction or 0)), zone or rest
end

-- Seconds east of Greenwich, or nil.
local function offset_of(zone)
  if zone == "" or zone == "Z" or zone == "z" then return 0 end
  local sign, hours, minutes = zone:match("^([+-])(%d%d):?(%d%d)$")
  if not sign then
    sign, hours = zone:match("^([+-])(%d%d)$")
    minutes = 0
  end
  if not sign or tonumber(hours) > 23 or tonumber(minutes) > 59 then return nil end
  return (sign == "-" and -60 or 60) * (hours * 60 + minutes)
end

-- Seconds, or nil and what is wrong.
local function parse(s)
  local year, month, day, rest = s:match("^%s*(%d%d%d%d)-(%d%d)-(%d%d)(.-)%s*$")
  if not year then
    year, month, day, rest = s:match("^%s*(%d%d%d%d)(%d%d)(%d%d)(.-)%s*$")
  end
  if not year then return nil, "it must begin with a date such as 2018-02-06" end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  local fault = check_range("month", month, 1, 12)
    or check_range("day", day, 1, days_in(year, month))
  if fault then return nil, fault end
  local seconds = days_of(year, month, day) * DAY
  if rest == "" then return seconds end

  local hour, minute, second, fraction, zone = clock_of(rest:match("^[Tt ](.*)$") or "")
  if not hour then return nil, "after the date a time such as T15:50:43Z may follow" end
  fault = check_range("hour", hour, 0, 23) or check_range("minute", minute, 0, 59)
    or check_range("second", second, 0, 60)        -- 60: a leap second, the next one in Unix time
  if fault then return nil, fault end
  local offset = offset_of(zone:match("^%s*(.*)$"))
  if not offset then return nil, ("%s is no offset such as Z or +01:00"):format(zone) end
  return seconds + hour * 3600 + minute * 60 + second - offset + fraction
end

local function parsed(fun, s)
  if type(s) ~= "string" then
    invalid("time.%s: the text must be a string, not %s", fun, name_of(s))
  end
  local seconds, fault = parse(s)
  if not seconds then invalid("time.%s: %q is no ISO 8601 time: %s", fun, s:sub(1, 40), fault) end
  return seconds
end

--- Unix seconds of an ISO 8601 text: `2018-02-06T15:50:43.840Z`, with an offset (`+01:00`), a space
--- for the T, without the seconds, or the date alone. Without an offset it is UTC.
---@param s string
---@return number
function time.parse(s)
  return parsed("parse", s)
end

--- Unix milliseconds of an ISO 8601 text.
---@param s string
---@return integer
function time.parse_ms(s)
  return math.floor(parsed("parse_ms", s) * 1000 + 0.5)
end

local function formatted(micro, digits)
  local seconds = math.floor(micro / 1e6)
  local days = math.floor(seconds / DAY)
  local year, month, day = date_of(days)
  local rest = seconds - days * DAY
  local s = ("%04d-%02d-%02dT%02d:%02d:%02d"):format(year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60)
  if digits > 0 then
    s = s .. ("." .. ("%06d"):format(micro - seconds * 1e6):sub(1, digits))
  end
  return s .. "Z"
end

--- The ISO 8601 text of Unix seconds, in UTC: `2018-02-06T15:50:43Z`. What does not fit the
--- digits is cut off, so that a time never lies in the next second.
---@param seconds number
---@param digits? integer  of the second's fraction, 0 to 6; 0 if left out
---@return string
function time.format(seconds, digits)
  check_time("format", seconds)
  digits = digits == nil and 0 or digits
  if type(digits) ~= "number" or digits % 1 ~= 0 or digits < 0 or digits > 6 then
    invalid("time.format: digits must be a whole number from 0 to 6")
  end
  return formatted(math.min(microseconds(seconds), LATEST * 1e6 + 999999), digits)
end

--- The ISO 8601 text of Unix milliseconds, in UTC: `2018-02-06T15:50:43.840Z`.
---@param ms number
---@return string
function time.format_ms(ms)
  check_number("format_ms", ms, "the time")
  check_time("format_ms", ms / 1000)
  return formatted(math.floor(ms) * 1000, 3)
end

--- The parts of a point in time. Weekdays count from Monday (1) to Sunday (7).
---@param seconds number
---@return table  { year, month, day, hour, minute, second, weekday, day_of_year }
function time.fields(seconds)
  check_time("fields", seconds)
  local days = math.floor(seconds / DAY)
  local year, month, day = date_of(days)
  local rest = seconds - days * DAY
  return {
    year = year, month = month, day = day,
    hour = math.floor(rest / 3600), minute = math.floor(rest / 60) % 60, second = rest % 60,
    weekday = (days + 3) % 7 + 1, day_of_year = days - days_of(year, 1, 1) + 1,
  }
end

local FIELDS = {
  { "year", 0, 9999 }, { "month", 1, 12, 1 }, { "day", 1, 31, 1 }, { "hour", 0, 23, 0 },
  { "minute", 0, 59, 0 }, { "second", 0, 60, 0 },
}

--- Unix seconds of { year, month, day, hour, minute, second }; what is left out is the least.
---@param fields table
---@return number
function time.from_fields(fields)
  if type(fields) ~= "table" then
    invalid("time.from_fields: a map is needed, not %s", name_of(fields))
  end
  local f = {}
  for _, field in ipairs(FIELDS) do
    local name, least, most, default = field[1], field[2], field[3], field[4]
    local value = fields[name]
    if value == nil then value = default end
    check_number("from_fields", value, name)
    local is_whole = name == "second" or value % 1 == 0
    if not is_whole or value < least or value > most then
      invalid("time.from_fields: %s must be %s from %d to %d", name,
        name == "second" and "a number" or "a whole number", least, most)
    end
    f[name] = value
  end
  if f.day > days_in(f.year, f.month) then
    invalid("time.from_fields: month %d of %d has no day %d", f.month, f.year, f.day)
  end
  return days_of(f.year, f.month, f.day) * DAY + f.hour * 3600 + f.minute * 60 + f.second
end

--- A time later by an amount of a unit (earlier if it is negative). A month after 31 January is the
--- last day of February.
---@param seconds number
---@param amount number  a whole number for month, quarter and year
---@param unit string  ms, second, minute, hour, day, week, month, quarter, year
---@return number
function time.add(seconds, amount, unit)
  check_time("add", seconds)
  check_number("add", amount, "the amount")
  unit = check_unit("add", unit)
  local sum
  if SECONDS[unit] then
    sum = unit == "ms" and seconds + amount / 1000 or seconds + amount * SECONDS[unit]
  else
    if amount % 1 ~= 0 then invalid("time.add: %s needs a whole number, not %g", unit, amount) end
    local days = math.floor(seconds / DAY)
    local year, month, day = date_of(days)
    local months = year * 12 + month - 1 + amount * MONTHS[unit]
    year, month = math.floor(months / 12), months % 12 + 1
    if year < 0 or year > 9999 then
      invalid("time.add: year %.0f is not in 0 to 9999", year)
    end
    sum = days_of(year, month, math.min(day, days_in(year, month))) * DAY + seconds - days * DAY
  end
  check_time("add", sum)
  return sum
end

--- The start of the unit in which a time lies. Weeks begin on Monday.
---@param seconds number
---@param unit string  ms, second, minute, hour, day, week, month, quarter, year
---@return number
function time.floor(seconds, unit)
  check_time("floor", seconds)
  unit = check_unit("floor", unit)
  if unit == "ms" then return math.floor(microseconds(seconds) / 1000) / 1000 end
  if unit == "week" then      -- 1970 began on a Thursday
    return math.floor((seconds + 3 * DAY) / SECONDS.week) * SECONDS.week - 3 * DAY
  end
  if SECONDS[unit] then return math.floor(seconds / SECONDS[unit]) * SECONDS[unit] end
  local year, month = date_of(math.floor(seconds / DAY))
  return days_of(year, month - (month - 1) % MONTHS[unit], 1) * DAY
end

--- How many units lie between two times; negative if the second is the earlier one.
---@param first number
---@param second number
---@param unit string  ms, second, minute, hour, day, week
---@return number
function time.between(first, second, unit)
  check_time("between", first)
  check_time("between", second)
  unit = check_unit("between", unit)
  if not SECONDS[unit] then invalid("time.between: a %s has no fixed length", unit) end
  if unit == "ms" then return (second - first) * 1000 end
  return (second - first) / SECONDS[unit]
end

time._mpreg = {}
for name, fun in pairs(time) do
  if type(fun) == "function" then time._mpreg[name] = { idempotent = true } end
end

return time
