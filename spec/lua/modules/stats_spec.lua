local cjson = require "cjson"

describe("modules/stats", function()
  local stats = dofile("modules/stats.lua")

  local function near(wanted, got)
    local ok = math.abs(wanted - got) <= 1e-12 * math.max(1, math.abs(wanted))
    assert.is_true(ok, ("%.17g wanted, %.17g got"):format(wanted, got))
  end

  local function refuses(message, fun, ...)
    local ok, err = pcall(fun, ...)
    assert.is_false(ok)
    assert.are.same({ code = "INVALID_ARGUMENT", message = message }, err)
  end

  it("sums, also nothing", function()
    assert.are.equal(6, stats.sum { 1, 2, 3 })
    assert.are.equal(0, stats.sum {})
    assert.are.equal(2, stats.sum { 1, 1e100, 1, -1e100 })
    assert.are.equal(math.huge, stats.sum { 1, math.huge })
  end)

  it("loses no small numbers beside large ones", function()
    local values = { 1e16 }
    for i = 2, 1001 do values[i] = 1 end
    assert.are.equal(1e16 + 1000, stats.sum(values))
    near(4, stats.variance { 1e9 + 1, 1e9 + 3, 1e9 + 5 })
  end)

  it("finds means", function()
    assert.are.equal(2, stats.mean { 1, 2, 3 })
    assert.are.equal(-1.5, stats.mean { -1, -2 })
    near(2.5, stats.weighted_mean({ 1, 3 }, { 1, 3 }))
    refuses("stats.weighted_mean: weight 2 is negative", stats.weighted_mean, { 1, 2 }, { 1, -1 })
    refuses("stats.weighted_mean: all weights are zero", stats.weighted_mean, { 1 }, { 0 })
  end)

  it("finds the least and the most", function()
    assert.are.equal(-3, stats.min { 2, -3, 7 })
    assert.are.equal(7, stats.max { 2, -3, 7 })
    assert.are.equal(5, stats.min { 5 })
  end)

  it("finds the median without touching the list", function()
    local values = { 5, 1, 3 }
    assert.are.equal(3, stats.median(values))
    assert.are.same({ 5, 1, 3 }, values)
    assert.are.equal(2.5, stats.median { 4, 1, 2, 3 })
    assert.are.equal(7, stats.median { 7 })
  end)

  it("finds quantiles as R does", function()
    local values = { 1, 2, 3, 4, 10 }
    assert.are.equal(1, stats.quantile(values, 0))
    assert.are.equal(10, stats.quantile(values, 1))
    assert.are.equal(2, stats.quantile(values, 0.25))
    near(3.4, stats.quantile(values, 0.6))
    near(7.6, stats.quantile(values, 0.9))
    for _, q in ipairs { -0.1, 1.1, "0.5", 0 / 0 } do
      refuses("stats.quantile: q must be a number from 0 to 1", stats.quantile, values, q)
    end
  end)

  it("finds the most frequent numbers", function()
    assert.are.same({ 2 }, stats.modes { 1, 2, 2, 3 })
    assert.are.same({ 1, 3 }, stats.modes { 3, 1, 2, 1, 3 })
    assert.are.same({ 1, 2 }, stats.modes { 2, 1 })
  end)

  it("finds the sample's variance and standard deviation", function()
    near(32 / 7, stats.variance { 2, 4, 4, 4, 5, 5, 7, 9 })
    near(math.sqrt(32 / 7), stats.stddev { 2, 4, 4, 4, 5, 5, 7, 9 })
    assert.are.equal(0, stats.variance { 3, 3 })
    refuses("stats.variance: 2 numbers or more are needed, not 1", stats.variance, { 3 })
    refuses("stats.stddev: the list is empty", stats.stddev, {})
  end)

  it("sums a list up", function()
    local s = stats.summary { 4, 1, 3, 2 }
    near(math.sqrt(5 / 3), s.stddev)
    s.stddev = nil
    assert.are.same({ count = 4, sum = 10, mean = 2.5, min = 1, q1 = 1.75, median = 2.5, q3 = 3.25,
      max = 4 }, s)
    assert.are.equal(0, stats.summary({ 3 }).stddev)
  end)

  it("counts in bins", function()
    assert.are.same({ { from = 0, to = 5, count = 2 }, { from = 5, to = 10, count = 3 } },
      stats.histogram({ 0, 4.9, 5, 9, 10 }, 2))
    assert.are.same({ { from = 0, to = 1, count = 1 }, { from = 1, to = 2, count = 1 } },
      stats.histogram({ -1, 0.5, 2, 2.1 }, 2, { min = 0, max = 2 }))
    assert.are.same({ { from = 2.5, to = 3.5, count = 2 } }, stats.histogram({ 3, 3 }, 1))
    assert.are.equal(10, #stats.histogram { 1, 2 })
    assert.are.same({ { from = 0, to = 1, count = 0 } },
      stats.histogram({}, 1, { min = 0, max = 1 }))
  end)

  it("counts every number of a list exactly once", function()
    local seed = 20180206
    math.randomseed(seed)
    for _ = 1, 50 do
      local values = {}
      for i = 1, math.random(1, 200) do
        values[i] = (math.random() - 0.5) * 10 ^ math.random(-3, 6)
      end
      local count = 0
      for _, bin in ipairs(stats.histogram(values, math.random(1, 40))) do
        count = count + bin.count
      end
      assert.are.equal(#values, count, "seed " .. seed)
    end
  end)

  it("refuses bins that make no sense", function()
    for _, bins in ipairs { 0, -1, 1.5, "2", 1e9 } do
      refuses("stats.histogram: bins must be a whole number from 1 to 100000",
        stats.histogram, { 1 }, bins)
    end
    refuses("stats.histogram: the list is empty; give min and max", stats.histogram, {})
    refuses("stats.histogram: min is above max", stats.histogram, { 1 }, 2, { min = 3, max = 2 })
    refuses("stats.histogram: max must be a finite number",
      stats.histogram, { 1 }, 2, { max = "2" })
    refuses("stats.histogram: the numbers must be finite", stats.histogram, { 1, math.huge })
  end)

  it("finds covariance and correlation", function()
    near(2, stats.covariance({ 1, 2, 3 }, { 2, 4, 6 }))
    near(1, stats.correlation({ 1, 2, 3 }, { 2, 4, 6 }))
    near(-1, stats.correlation({ 1, 2, 3 }, { 3, 2, 1 }))
    near(0, stats.correlation({ 1, 2, 3 }, { 1, 0, 1 }))
    refuses("stats.correlation: all numbers of one list are equal",
      stats.correlation, { 1, 2 }, { 3, 3 })
    refuses("stats.covariance: the lists differ in length: 2 and 3",
      stats.covariance, { 1, 2 }, { 1, 2, 3 })
  end)

  it("fits a line", function()
    local line = stats.linear_regression({ 0, 1, 2, 3 }, { 1, 3, 5, 7 })
    assert.are.same({ slope = 2, intercept = 1, r2 = 1, n = 4 }, line)
    -- Anscombe's first quartet: slope 0.5001, intercept 3.0001, r² 0.6665.
    local fit = stats.linear_regression({ 10, 8, 13, 9, 11, 14, 6, 4, 12, 7, 5 },
      { 8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68 })
    assert.are.equal("0.5001 3.0001 0.6665",
      ("%.4f %.4f %.4f"):format(fit.slope, fit.intercept, fit.r2))
    assert.are.same({ slope = 0, intercept = 4, r2 = 1, n = 2 },
      stats.linear_regression({ 1, 2 }, { 4, 4 }))
    refuses("stats.linear_regression: all x are equal", stats.linear_regression, { 2, 2 }, { 1, 3 })
  end)

  it("averages over a moving window", function()
    assert.are.same({ 1.5, 2.5, 3.5 }, stats.moving_average({ 1, 2, 3, 4 }, 2))
    assert.are.same({ 1, 2 }, stats.moving_average({ 1, 2 }, 1))
    assert.are.same({}, stats.moving_average({ 1, 2 }, 3))
    refuses("stats.moving_average: window must be a whole number from 1",
      stats.moving_average, { 1 }, 0)
  end)

  it("finds z-scores", function()
    assert.are.same({ -1, 0, 1 }, stats.z_scores { 1, 2, 3 })
    refuses("stats.z_scores: all numbers are equal", stats.z_scores, { 2, 2 })
  end)

  it("says what is wrong with a list", function()
    refuses("stats.mean: the list is empty", stats.mean, {})
    refuses("stats.mean: a list of numbers is needed, not nil", stats.mean)
    refuses("stats.mean: a list of numbers is needed, not null", stats.mean, cjson.null)
    refuses("stats.mean: a list of numbers is needed, not string", stats.mean, "1,2")
    refuses("stats.mean: a list of numbers is needed, not a map", stats.mean, { a = 1 })
    refuses("stats.mean: element 2 must be a number, not string", stats.mean, { 1, "2" })
    refuses("stats.mean: element 2 must be a number, not null", stats.mean, { 1, cjson.null })
    refuses("stats.mean: element 1 must be a number, not NaN", stats.mean, { 0 / 0 })
    for name, fun in pairs(stats) do
      if type(fun) == "function" and name ~= "sum" and name ~= "moving_average" then
        assert.is_false((pcall(fun, {}, {})), name)
      end
    end
  end)

  it("takes 64-bit integers", function()
    assert.are.equal(2, stats.mean { 1LL, 3ULL })
  end)

  it("says of every function that it may run twice", function()
    for name, fun in pairs(stats) do
      if type(fun) == "function" then assert.is_true(stats._mpreg[name].idempotent) end
    end
  end)
end)
