local units = require "mpreg.units"

describe("units", function()
  it("reads durations", function()
    for text, ms in pairs { ["250ms"] = 250, ["5s"] = 5000, ["1.5s"] = 1500, ["2m"] = 120000,
      ["1h"] = 3600000, [".5s"] = 500, ["0s"] = 0, ["0.1h"] = 360000 } do
      assert.are.equal(ms, units.duration_ms(text))
    end
  end)

  it("refuses what is no duration", function()
    for _, text in ipairs { "", "5", "s", "5 s", "-5s", "5sec", "1e3s", "0x5s", "1.2.3s", "0.5ms",
      "99999h", "nan", "5S" } do
      local ms, problem = units.duration_ms(text)
      assert.is_nil(ms, text)
      assert.is_string(problem)
    end
  end)

  it("reads sizes", function()
    for text, bytes in pairs { ["64"] = 64, ["1K"] = 1024, ["256M"] = 2 ^ 28, ["1G"] = 2 ^ 30,
      ["1.5K"] = 1536, ["64MiB"] = 2 ^ 26, ["2KB"] = 2048 } do
      assert.are.equal(bytes, units.size_bytes(text))
    end
  end)

  it("refuses what is no size", function()
    for _, text in ipairs { "", "M", "-1M", "1T", "1 M", "0.3", "9999999G", "1m" } do
      local bytes, problem = units.size_bytes(text)
      assert.is_nil(bytes, text)
      assert.is_string(problem)
    end
  end)
end)
