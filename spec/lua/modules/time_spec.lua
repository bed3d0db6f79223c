describe("modules/time", function()
  local time = dofile("modules/time.lua")

  local function refuses(message, fun, ...)
    local ok, err = pcall(fun, ...)
    assert.is_false(ok)
    assert.are.same({ code = "INVALID_ARGUMENT", message = message }, err)
  end

  it("can be loaded twice in one process", function()
    assert.are.equal("1.0.0", dofile("modules/time.lua")._VERSION)
  end)

  it("knows what time it is", function()
    local before = os.time()
    local now, ms = time.now(), time.now_ms()
    assert.is_true(before <= now and now <= os.time() + 1)
    assert.are.equal(0, ms % 1)
    assert.is_true(math.abs(ms / 1000 - now) < 60)
  end)

  describe("parse", function()
    it("reads ISO 8601 in its usual forms", function()
      for text, seconds in pairs {
        ["2018-02-06T15:50:43Z"] = 1517932243,
        ["2018-02-06t15:50:43z"] = 1517932243,
        ["2018-02-06 15:50:43"] = 1517932243,
        ["20180206T155043Z"] = 1517932243,
        ["2018-02-06T15:50Z"] = 1517932200,
        ["2018-02-06T16:50:43+01:00"] = 1517932243,
        ["2018-02-06T07:50:43-0800"] = 1517932243,
        ["2018-02-06T21:20:43 +05:30"] = 1517932243,
        ["2018-02-06T16:50:43+01"] = 1517932243,
        ["2018-02-06"] = 1517875200,
        [" 2018-02-06\n"] = 1517875200,
        ["1970-01-01T00:00:00Z"] = 0,
        ["1969-12-31T23:59:59Z"] = -1,
        ["2000-02-29T00:00:00Z"] = 951782400,
        ["2016-12-31T23:59:60Z"] = 1483228800,
        ["0000-01-01T00:00:00Z"] = -62167219200,
        ["9999-12-31T23:59:59Z"] = 253402300799,
      } do
        assert.are.equal(seconds, time.parse(text), text)
      end
    end)

    it("keeps fractions", function()
      assert.are.equal(1517932243.5, time.parse("2018-02-06T15:50:43.5Z"))
      assert.are.equal(1517932243.5, time.parse("2018-02-06T15:50:43,5Z"))
      assert.are.equal(1517932243840, time.parse_ms("2018-02-06T15:50:43.840Z"))
      assert.are.equal(-500, time.parse_ms("1969-12-31T23:59:59.5Z"))
    end)

    it("says what is wrong", function()
      local head = 'time.parse: "%s" is no ISO 8601 time: %s'
      for text, fault in pairs {
        [""] = "it must begin with a date such as 2018-02-06",
        ["6 Feb 2018"] = "it must begin with a date such as 2018-02-06",
        ["2018-13-01"] = "month 13 is not in 1 to 12",
        ["2018-02-29"] = "day 29 is not in 1 to 28",
        ["1900-02-29"] = "day 29 is not in 1 to 28",
        ["2018-04-31"] = "day 31 is not in 1 to 30",
        ["2018-02-06T24:00:00Z"] = "hour 24 is not in 0 to 23",
        ["2018-02-06T15:60:00Z"] = "minute 60 is not in 0 to 59",
        ["2018-02-06T15:50:61Z"] = "second 61 is not in 0 to 60",
        ["2018-02-06T"] = "after the date a time such as T15:50:43Z may follow",
        ["2018-02-06x"] = "after the date a time such as T15:50:43Z may follow",
        ["2018-02-06T15:50:43 CET"] = " CET is no offset such as Z or +01:00",
        ["2018-02-06T15:50:43+99:00"] = "+99:00 is no offset such as Z or +01:00",
      } do
        refuses(head:format(text, fault), time.parse, text)
      end
      refuses("time.parse: the text must be a string, not number", time.parse, 5)
    end)
  end)

  describe("format", function()
    it("writes UTC, whatever the machine's zone", function()
      assert.are.equal("2018-02-06T15:50:43Z", time.format(1517932243))
      assert.are.equal("1970-01-01T00:00:00Z", time.format(0))
      assert.are.equal("1969-12-31T23:59:59Z", time.format(-1))
      assert.are.equal("0000-01-01T00:00:00Z", time.format(-62167219200))
      assert.are.equal("9999-12-31T23:59:59.999Z", time.format(253402300799.9999, 3))
    end)

    it("cuts fractions off, never into the next second", function()
      assert.are.equal("2018-02-06T15:50:43Z", time.format(1517932243.999))
      assert.are.equal("2018-02-06T15:50:43.999Z", time.format(1517932243.9996, 3))
      assert.are.equal("2018-02-06T15:50:43.840Z", time.format(1517932243.84, 3))
      assert.are.equal("2018-02-06T15:50:43.840Z", time.format_ms(1517932243840))
      assert.are.equal("1969-12-31T23:59:59.999Z", time.format_ms(-1))
    end)

    it("refuses what lies outside the calendar", function()
      refuses("time.format: 253402300800 seconds are not in the years 0 to 9999",
        time.format, 253402300800)
      refuses("time.format: digits must be a whole number from 0 to 6", time.format, 0, 7)
      refuses("time.format: the time must be a finite number, not string", time.format, "0")
      refuses("time.format_ms: the time must be a finite number, not number",
        time.format_ms, 0 / 0)
    end)

    it("agrees with the C library on each day of 130 years, and parse reads it back", function()
      for day = -25567, 22000, 7 do         -- 1900 to 2030
        local seconds = day * 86400 + (day * 7919) % 86400
        local text = time.format(seconds)
        assert.are.equal(os.date("!%Y-%m-%dT%H:%M:%SZ", seconds), text)
        assert.are.equal(seconds, time.parse(text))
      end
    end)

    it("reads every millisecond back that it wrote", function()
      for ms = 1517932243000, 1517932244000 do
        assert.are.equal(ms, time.parse_ms(time.format_ms(ms)))
        assert.are.equal(time.format_ms(ms), time.format(ms / 1000, 3))
      end
    end)
  end)

  it("takes times apart and puts them together", function()
    local fields = time.fields(1517932243.25)
    assert.are.same({ year = 2018, month = 2, day = 6, hour = 15, minute = 50, second = 43.25,
      weekday = 2, day_of_year = 37 }, fields)
    assert.are.equal(1517932243.25, time.from_fields(fields))
    assert.are.equal(7, time.fields(-4 * 86400).weekday)      -- 28 December 1969, a Sunday
    assert.are.equal(0, time.from_fields { year = 1970 })
    refuses("time.from_fields: month 2 of 2018 has no day 29",
      time.from_fields, { year = 2018, month = 2, day = 29 })
    refuses("time.from_fields: month must be a whole number from 1 to 12",
      time.from_fields, { year = 2018, month = 13 })
    refuses("time.from_fields: year must be a finite number, not nil", time.from_fields, {})
  end)

  describe("add", function()
    local function add(text, amount, unit)
      return time.format(time.add(time.parse(text), amount, unit), 3)
    end

    it("adds spans", function()
      assert.are.equal("2018-02-06T15:50:43.001Z", add("2018-02-06T15:50:43Z", 1, "ms"))
      assert.are.equal("2018-02-06T15:51:13.000Z", add("2018-02-06T15:50:43Z", 0.5, "minutes"))
      assert.are.equal("2018-03-01T00:00:00.000Z", add("2018-02-28T23:00:00Z", 1, "hour"))
      assert.are.equal("2018-01-30T15:50:43.000Z", add("2018-02-06T15:50:43Z", -1, "week"))
    end)

    it("adds months by the calendar", function()
      assert.are.equal("2018-02-28T12:00:00.000Z", add("2018-01-31T12:00:00Z", 1, "month"))
      assert.are.equal("2016-02-29T00:00:00.000Z", add("2016-01-31", 1, "month"))
      assert.are.equal("2017-12-31T00:00:00.000Z", add("2018-03-31", -1, "quarter"))
      assert.are.equal("2017-02-28T00:00:00.000Z", add("2016-02-29", 1, "year"))
      assert.are.equal("1968-11-01T00:00:00.000Z", add("1970-01-01", -14, "months"))
    end)

    it("refuses parts of months, other units, and leaving the calendar", function()
      refuses("time.add: month needs a whole number, not 0.5", time.add, 0, 0.5, "month")
      local units = "ms, second, minute, hour, day, week, month, quarter or year"
      refuses("time.add: the unit must be " .. units, time.add, 0, 1, "fortnight")
      refuses("time.add: year 11970 is not in 0 to 9999", time.add, 0, 10000, "year")
      assert.is_false((pcall(time.add, 0, 1e9, "day")))
    end)
  end)

  it("goes back to the start of a unit", function()
    for unit, text in pairs {
      second = "2018-02-06T15:50:43Z", minute = "2018-02-06T15:50:00Z",
      hour = "2018-02-06T15:00:00Z", day = "2018-02-06T00:00:00Z", week = "2018-02-05T00:00:00Z",
      month = "2018-02-01T00:00:00Z", quarter = "2018-01-01T00:00:00Z",
      year = "2018-01-01T00:00:00Z",
    } do
      local start = time.floor(1517932243.84, unit)
      assert.are.equal(text, time.format(start), unit)
      assert.are.equal(start, time.floor(start, unit))
    end
    assert.are.equal(1517932243.84, time.floor(1517932243.8409, "ms"))
    assert.are.equal("1969-12-29T00:00:00Z", time.format(time.floor(0, "week")))
    assert.are.equal("1969-12-31T00:00:00Z", time.format(time.floor(-1, "day")))
  end)

  it("measures what lies between", function()
    assert.are.equal(1.5, time.between(0, 5400, "hours"))
    assert.are.equal(-1, time.between(86400, 0, "day"))
    assert.are.equal(250, time.between(0, 0.25, "ms"))
    refuses("time.between: a month has no fixed length", time.between, 0, 1, "month")
  end)

  it("says of every function that it may run twice", function()
    for name, fun in pairs(time) do
      if type(fun) == "function" then assert.is_true(time._mpreg[name].idempotent) end
    end
  end)
end)
