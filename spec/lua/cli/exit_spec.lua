local exit = require "mpreg.cli.exit"

describe("cli.exit", function()
  it("tells when a call failed", function()
    local cases = {
      { { code = "INVALID_ARGUMENT", reason = "CYCLE" }, 2 },
      { { code = "INVALID_ARGUMENT", reason = "USAGE" }, 2 },
      { { code = "RESOURCE_EXHAUSTED", reason = "TOO_LARGE" }, 2 },
      { { code = "NOT_FOUND", reason = "UNKNOWN_FUNCTION" }, 3 },
      { { code = "FAILED_PRECONDITION", reason = "UNSATISFIABLE" }, 3 },
      { { code = "FAILED_PRECONDITION", reason = "NO_VERSION" }, 3 },
      { { code = "UNAVAILABLE", reason = "NO_NODE" }, 3 },
      { { code = "FAILED_PRECONDITION", reason = "RUN_SUCCEEDED" }, 2 },
      { { code = "FAILED_PRECONDITION", reason = "RUN_GOES_ON" }, 2 },
      { { code = "FAILED_PRECONDITION", reason = "GRAPH_CHANGED" }, 2 },
      { { code = "NOT_FOUND", reason = "UNKNOWN_STEP" }, 2 },
      { { code = "NOT_FOUND", reason = "UNKNOWN_RUN" }, 3 },
      { { code = "UNAVAILABLE", reason = "COORDINATOR_LOST" }, 1 },
      { { code = "UNAVAILABLE", reason = "STOPPING" }, 3 },
      { { code = "RESOURCE_EXHAUSTED", reason = "QUEUE_FULL" }, 3 },
      { { code = "DEADLINE_EXCEEDED", reason = "DEADLINE_EXCEEDED" }, 4 },
      { { code = "DEADLINE_EXCEEDED", reason = "DEADLINE_EXCEEDED", attempt = 1 }, 4 },
      { { code = "DEADLINE_EXCEEDED", reason = "NO_ANSWER" }, 4 },
      { { code = "PERMISSION_DENIED", reason = "CLUSTER_MISMATCH" }, 5 },
      { { code = "UNAUTHENTICATED" }, 5 },
      { { code = "UNKNOWN", reason = "FUNCTION_ERROR", attempt = 1 }, 1 },
      { { code = "INVALID_ARGUMENT", reason = "MISSING_FIELD", attempt = 1 }, 1 },
      { { code = "PERMISSION_DENIED", attempt = 2 }, 1 },
      { { code = "NOT_FOUND", reason = "UNKNOWN_FUNCTION", attempt = 1 }, 1 },
      { { code = "UNAVAILABLE", reason = "WORKER_LOST" }, 1 },
      { { code = "UNAVAILABLE", reason = "SESSION_LOST" }, 1 },
      { { code = "UNAVAILABLE", reason = "NODE_LOST" }, 1 },
      { { code = "CANCELLED" }, 1 },
      { { code = "INTERNAL" }, 1 },
      { {}, 1 },
      { { code = "CANCELLED", reason = "INTERRUPTED" }, 130 },
    }
    for _, case in ipairs(cases) do
      assert.are.equal(case[2], exit.of_error(case[1]),
        ("%s/%s"):format(tostring(case[1].code), tostring(case[1].reason)))
    end
  end)

  it("knows that nothing began with a question about a run", function()
    assert.are.equal(3, exit.of_question { code = "UNAVAILABLE", reason = "COORDINATOR_LOST" })
    assert.are.equal(3, exit.of_question { code = "NOT_FOUND", reason = "UNKNOWN_RUN" })
    assert.are.equal(130, exit.of_question { code = "CANCELLED", reason = "INTERRUPTED" })
    assert.are.equal(1, exit.of_question { code = "DATA_LOSS", reason = "RESULT_LOST" })
  end)

  it("takes a run for something that began", function()
    assert.are.equal(0, exit.of_run { status = "succeeded" })
    assert.are.equal(1, exit.of_run { status = "failed", error = { code = "INVALID_ARGUMENT" } })
    assert.are.equal(1, exit.of_run { status = "cancelled" })
    assert.are.equal(4, exit.of_run { status = "timed_out" })
  end)
end)
