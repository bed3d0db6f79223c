-- From a week of seismic events to a report. Steps without a reference between them run side by
-- side: every network, every cluster, and the search for the largest events.

local mpreg = require "mpreg"

return mpreg.pipeline("quakes", function(p, input)
  local file = p.default(input.file, "week.json")
  local events = p "events" { "quakes.load", file, needs = { "catalogue" } }
  local sorted = p "sorted" { "quakes.classify", events.features }

  local networks = p "networks" {
    "quakes.summary", p.item.name, p.item.rows, each = sorted.networks,
  }
  local by_network = p "by_network" { "quakes.by_network", networks }

  local window = p.default(input.window, {})
  local groups = p "groups" { "quakes.link", sorted.earthquakes, window }
  local clusters = p "clusters" { "quakes.describe", p.item.rows, each = groups }

  local largest = p "largest" { "quakes.largest", events.features, 10 }
  local report = p "report" {
    "quakes.report", networks,
    {
      first = events.first, last = events.last,
      largest = largest, clusters = clusters, window = window,
    },
  }

  return {
    total = sorted.total,
    earthquakes = sorted.kinds.earthquakes,
    explosions = sorted.kinds.explosions,
    quarry_blasts = sorted.kinds.quarry_blasts,
    other = sorted.kinds.other,
    by_network = by_network,
    largest = largest,
    clusters = clusters,
    report = report.text,
  }
end)
