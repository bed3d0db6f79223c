--- Built-in functions that every node has: small, honest probes of a cluster.
---
--- They are ordinary Lua and run in a worker like any other function, so what they show (where a
--- call went, how long it took, how a failure looks) is what a user's own function would show.

local runtime = require "mpreg"

local mpreg = { _VERSION = "1.0.0" }

local function invalid(message)
  error({ code = "INVALID_ARGUMENT", message = message }, 0)
end

--- Gives back exactly what it was given.
---@param x any  whatever can be sent
---@return any
function mpreg.echo(x)
  return x
end

--- Waits without keeping the worker busy: other calls run meanwhile. May yield.
---@param seconds number  zero or more; fractions are fine
---@return nil
function mpreg.sleep(seconds)
  if type(seconds) ~= "number" then
    invalid("mpreg.sleep: seconds must be a number, not " .. type(seconds))
  end
  if not (seconds >= 0 and seconds < math.huge) then
    invalid(("mpreg.sleep: seconds must be zero or more and finite, not %g"):format(seconds))
  end
  runtime.sleep(seconds)
end

--- Tells on which node it ran.
---@return { name: string, cluster: string, addr: string }
function mpreg.node()
  return runtime.node()
end

--- Fails with this message (code `UNKNOWN`, reason `FUNCTION_ERROR`), to try how failures travel.
---@param message string  the error's text
---@return nil
function mpreg.fail(message)
  local kind = type(message)
  if kind == "number" or kind == "boolean" then
    message = tostring(message)
  elseif kind ~= "string" then
    invalid("mpreg.fail: the message must be a string, not " .. kind)
  end
  error(message, 0)
end

-- `sleep` and `fail` are not marked: what they are called for is their effect.
mpreg._mpreg = {
  echo = { idempotent = true },
  node = { idempotent = true },
}

return mpreg
