local hello = { _VERSION = "1.0.0" }

--- Greets somebody.
---@param name string
---@return string
function hello.greet(name) return "Hello, " .. name .. "!" end

return hello
