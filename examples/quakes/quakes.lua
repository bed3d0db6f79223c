--- Earthquake catalogues: magnitudes of completeness, b-values, clusters, and a report in words.
---
--- A catalogue is a list of events, each a map with `id`, `net`, `type`, `time` (Unix ms), `mag`,
--- `mag_type`, `place`, `latitude`, `longitude` and `depth` (km). What is not known of an event is
--- left out. Magnitudes are put into bins that are counted in whole tenths, so that no result hangs
--- on how binary fractions round.

local cjson = require "cjson"
local mpreg = require "mpreg"

local quakes = { _VERSION = "1.0.0" }

---@class QuakeEvent     one row of a catalogue
---@field id string
---@field net string          code of the network that recorded it
---@field type string         "earthquake", "explosion", "quarry blast" …
---@field time? number        Unix ms
---@field mag? number
---@field mag_type? string
---@field place? string
---@field latitude? number
---@field longitude? number
---@field depth? number       km, downwards

---@class QuakeSummary   what one network recorded
---@field name string
---@field count integer              events of any kind
---@field earthquakes integer
---@field explosions integer
---@field quarry_blasts integer
---@field other integer
---@field largest number|nil         magnitude of the largest event
---@field largest_event QuakeEvent|nil
---@field completeness number|nil    magnitude
---@field complete_count integer|nil earthquakes at or above it
---@field b_value number|nil
---@field b_error number|nil         its standard error
---@field magnitude_types table      type → earthquakes
---@field notes string[]             why a value is null or weak

---@class QuakeCluster
---@field kind "mainshock-aftershock"|"swarm"
---@field count integer
---@field place? string              of the largest, as latitude, longitude and depth are
---@field first number               Unix ms
---@field last number                Unix ms
---@field hours number               from the first to the last
---@field largest number|nil         magnitude
---@field largest_id string
---@field gap number|nil             magnitude above the second largest
---@field before integer             events before the largest
---@field after integer              events after it
---@field radius_km number           from the largest to the event farthest from it
---@field networks string[]
---@field events string[]            ids, in order of time

local CORRECTION = 2                -- tenths, added to the fullest bin (Woessner & Wiemer 2005)
local MIN_FOR_COMPLETENESS = 50     -- earthquakes: fewer leave the fullest bin to chance
local MIN_FOR_B = 30                -- earthquakes at or above the completeness
local FEW_FOR_B = 50                -- below this a b-value is marked as indicative
local EARTH_RADIUS_KM = 6371
local DAY_MS = 86400000
local LINK_KM = 10
local LINK_DAYS = 1
local CLUSTER_EVENTS_MIN = 5
local MAINSHOCK_GAP = 0.8           -- Båth's mean of 1.2 less its usual scatter of 0.4

local NETWORKS = {
  ak = "Alaska", ci = "Southern California", hv = "Hawaii", mb = "Montana",
  nc = "Northern California", nm = "New Madrid", nn = "Nevada", pr = "Puerto Rico",
  se = "South-eastern US", us = "NEIC, world-wide", uu = "Utah", uw = "Pacific Northwest",
}

local function fail(code, message)
  error({ code = code, message = message }, 0)
end

local function check_list(value, what)
  if type(value) ~= "table" then
    fail("INVALID_ARGUMENT", ("%s must be a list of maps, not %s"):format(what, type(value)))
  end
  for place, element in ipairs(value) do
    if type(element) ~= "table" then
      fail("INVALID_ARGUMENT", ("%s[%d] must be a map, not %s"):format(what, place, type(element)))
    end
  end
end

local function known(value, kind)   -- JSON null comes as a light userdata
  if type(value) == kind then return value end
end

local function or_null(value)
  if value == nil then return mpreg.null end
  return value
end

-- Centre of an event's bin, in tenths; halves go up, below zero too. A half must be one although
-- its binary fraction may be a little less: hence the millionth.
local function bin_of(magnitude)
  return math.floor(magnitude * 10 + 0.5 + 1e-6)
end

local function by_time(a, b)
  local s, t = known(a.time, "number") or math.huge, known(b.time, "number") or math.huge
  if s ~= t then return s < t end
  return (known(a.id, "string") or "") < (known(b.id, "string") or "")
end

local function by_magnitude(a, b)
  if a.mag ~= b.mag then return a.mag > b.mag end
  return by_time(a, b)
end

local function is_earthquake(event)
  return event.type == "earthquake"
end

local function has_magnitude(event)
  return type(event.mag) == "number"
end

local function is_located(event)
  return type(event.time) == "number"
    and type(event.latitude) == "number" and type(event.longitude) == "number"
end

local function keep(events, wanted)
  local rows = {}
  for _, event in ipairs(events) do
    if wanted(event) then rows[#rows + 1] = event end
  end
  return rows
end

-- Names a type's family: there are nuclear, mining and chemical explosions, too.
local function kind_of(event)
  local kind = known(event.type, "string") or ""
  if kind == "earthquake" then return "earthquakes" end
  if kind:find("explosion", 1, true) then return "explosions" end
  if kind:find("quarry", 1, true) then return "quarry_blasts" end
  return "other"
end

local function count_kinds(events)
  local counts = { earthquakes = 0, explosions = 0, quarry_blasts = 0, other = 0 }
  for _, event in ipairs(events) do
    local kind = kind_of(event)
    counts[kind] = counts[kind] + 1
  end
  return counts
end

-- One GeoJSON feature as a flat row.
local function clean(feature, place)
  local about = type(feature) == "table" and known(feature.properties, "table")
  if not about then
    fail("DATA_LOSS", ("feature %d of the catalogue has no properties"):format(place))
  end
  local geometry = known(feature.geometry, "table") or {}
  local at = known(geometry.coordinates, "table") or {}
  return {
    id = known(feature.id, "string") or ("feature-" .. place),
    net = known(about.net, "string") or "unknown",
    type = (known(about.type, "string") or "unknown"):lower(),
    time = known(about.time, "number"),
    mag = known(about.mag, "number"),
    mag_type = known(about.magType, "string"),
    place = known(about.place, "string"),
    longitude = known(at[1], "number"),
    latitude = known(at[2], "number"),
    depth = known(at[3], "number"),
  }
end

--- Reads a catalogue in the USGS's GeoJSON from this node's resource `catalogue` and keeps the
--- fields that matter, in order of time.
---@param file string  a file's name in the resource's folder
---@return table  { count, features: QuakeEvent[], first, last }, the last two in Unix ms
function quakes.load(file)
  if type(file) ~= "string" or file == "" then
    fail("INVALID_ARGUMENT", "quakes.load: give a file's name, such as week.json")
  end
  if file:find("[/\\%z]") or file:find("..", 1, true) then
    fail("INVALID_ARGUMENT", "quakes.load: a file's name may contain neither a slash nor '..'")
  end
  local catalogue = mpreg.resource("catalogue")
  if type(catalogue) ~= "table" or type(catalogue.path) ~= "string" then
    fail("FAILED_PRECONDITION", "the resource catalogue must say where the files are: "
      .. [[--resource 'catalogue={"path":"…"}']])
  end
  local handle = io.open(catalogue.path .. "/" .. file, "rb")
  local text = handle and handle:read("*a")
  if handle then handle:close() end
  if not text then fail("NOT_FOUND", "the catalogue has no file " .. file) end
  local ok, document = pcall(cjson.decode, text)
  if not ok then fail("DATA_LOSS", file .. " is not JSON: " .. tostring(document)) end
  local features = type(document) == "table" and known(document.features, "table")
  if not features then fail("DATA_LOSS", file .. " is not a GeoJSON collection of features") end

  local rows = mpreg.array {}
  for place, feature in ipairs(features) do rows[place] = clean(feature, place) end
  table.sort(rows, by_time)
  local timed = keep(rows, function(row) return row.time ~= nil end)
  local first, last = timed[1] or {}, timed[#timed] or {}
  return { count = #rows, features = rows, first = or_null(first.time), last = or_null(last.time) }
end

local function split_by_network(events, with_rows)
  local networks, of = mpreg.array {}, {}
  for _, event in ipairs(events) do
    local network = of[event.net]
    if not network then
      network = { name = event.net, count = 0, rows = with_rows and {} or nil }
      of[event.net] = network
      networks[#networks + 1] = network
    end
    network.count = network.count + 1
    if with_rows then network.rows[network.count] = event end
  end
  table.sort(networks, function(a, b) return a.name < b.name end)
  return networks
end

--- Events at or above a magnitude, and the networks that recorded them. Events without a magnitude
--- fall out.
---@param events QuakeEvent[]
---@param min number  magnitude
---@return table  { rows: QuakeEvent[], networks: { name, count }[] }
function quakes.filter(events, min)
  check_list(events, "quakes.filter: events")
  if type(min) ~= "number" then
    fail("INVALID_ARGUMENT", "quakes.filter: min must be a magnitude, not " .. type(min))
  end
  local rows = keep(events, function(event)
    return has_magnitude(event) and event.mag >= min
  end)
  return { rows = mpreg.array(rows), networks = split_by_network(rows) }
end

--- Tells earthquakes from explosions, quarry blasts and the rest, and splits the events by network.
---@param events QuakeEvent[]
---@return table  { total, kinds, earthquakes: QuakeEvent[], networks: { name, count, rows }[] }
function quakes.classify(events)
  check_list(events, "quakes.classify: events")
  return {
    total = #events, kinds = count_kinds(events),
    earthquakes = mpreg.array(keep(events, is_earthquake)),
    networks = split_by_network(events, true),
  }
end

--- Magnitude of completeness by maximum curvature: the centre of the fullest bin of 0.1 plus 0.2
--- (Woessner & Wiemer 2005). Of equally full bins the highest counts: rather too high than too low.
---@param events QuakeEvent[]  earthquakes; those without a magnitude fall out
---@return table  { completeness, n }, or { n, reason } if there are too few
function quakes.completeness(events)
  check_list(events, "quakes.completeness: events")
  local counts, n = {}, 0
  for _, event in ipairs(events) do
    if has_magnitude(event) then
      local bin = bin_of(event.mag)
      counts[bin] = (counts[bin] or 0) + 1
      n = n + 1
    end
  end
  if n < MIN_FOR_COMPLETENESS then
    return { n = n, reason = ("%d earthquakes, fewer than %d"):format(n, MIN_FOR_COMPLETENESS) }
  end
  local fullest
  for bin, count in pairs(counts) do
    if not fullest or count > counts[fullest] or count == counts[fullest] and bin > fullest then
      fullest = bin
    end
  end
  return { completeness = (fullest + CORRECTION) / 10, n = n }
end

--- Gutenberg–Richter b-value by maximum likelihood (Aki 1965) with Utsu's correction for bins of
--- 0.1, b = log10(e) / (mean - (completeness - 0.05)), and its standard error (Shi & Bolt 1982).
---@param events QuakeEvent[]  earthquakes; those below the completeness fall out
---@param completeness number  magnitude
---@return table  { b, error, n, mean }, or { n, reason } if there are too few
function quakes.b_value(events, completeness)
  check_list(events, "quakes.b_value: events")
  if type(completeness) ~= "number" then
    fail("INVALID_ARGUMENT",
      "quakes.b_value: completeness must be a magnitude, not " .. type(completeness))
  end
  local threshold, n, sum, squares = bin_of(completeness), 0, 0, 0
  for _, event in ipairs(events) do
    local bin = has_magnitude(event) and bin_of(event.mag)
    if bin and bin >= threshold then
      n, sum, squares = n + 1, sum + bin, squares + bin * bin
    end
  end
  if n < MIN_FOR_B then
    local reason = "%d earthquakes at or above %.1f, fewer than %d"
    return { n = n, reason = reason:format(n, threshold / 10, MIN_FOR_B) }
  end
  local mean = sum / n / 10
  local b = math.log10(math.exp(1)) / (mean - (threshold - 0.5) / 10)
  local deviations = math.max(0, squares - sum * sum / n) / 100
  local err = math.log(10) * b * b * math.sqrt(deviations / (n * (n - 1)))
  return { b = b, error = err, n = n, mean = mean }
end

--- What one network recorded. `count` and `largest` speak of all its events; completeness and
--- b-value of its earthquakes alone. Where these are too few, the value is null; `notes` says why.
---@param name string  the network's code
---@param events QuakeEvent[]  a catalogue; events of other networks fall out
---@return QuakeSummary
function quakes.summary(name, events)
  check_list(events, "quakes.summary: events")
  local own = keep(events, function(event) return event.net == name end)
  local earthquakes = keep(own, is_earthquake)
  local largest = quakes.largest(own, 1)[1]
  local complete = quakes.completeness(earthquakes)
  local found = {}
  if complete.completeness then found = quakes.b_value(earthquakes, complete.completeness) end

  local types, notes = {}, mpreg.array {}
  for _, event in ipairs(earthquakes) do
    local kind = known(event.mag_type, "string") or "unknown"
    if has_magnitude(event) then types[kind] = (types[kind] or 0) + 1 end
  end
  if complete.reason then notes[#notes + 1] = "no completeness: " .. complete.reason end
  if found.reason then notes[#notes + 1] = "no b-value: " .. found.reason end
  if found.b and found.n < FEW_FOR_B then
    notes[#notes + 1] = ("b-value from %d earthquakes only: indicative"):format(found.n)
  end

  local record = count_kinds(own)
  record.name, record.count = name, #own
  record.largest, record.largest_event = or_null(largest and largest.mag), or_null(largest)
  record.completeness, record.complete_count = or_null(complete.completeness), or_null(found.n)
  record.b_value, record.b_error = or_null(found.b), or_null(found.error)
  record.magnitude_types, record.notes = types, notes
  return record
end

--- Makes a map by the network's code of a list of summaries.
---@param summaries QuakeSummary[]
---@return table<string,QuakeSummary>
function quakes.by_network(summaries)
  check_list(summaries, "quakes.by_network: summaries")
  local map = {}
  for _, summary in ipairs(summaries) do map[summary.name] = summary end
  return map
end

--- The largest events, of any kind; of equal ones the earlier first.
---@param events QuakeEvent[]
---@param n? integer  how many; 10 if left out
---@return QuakeEvent[]
function quakes.largest(events, n)
  check_list(events, "quakes.largest: events")
  n = n == nil and 10 or n
  if type(n) ~= "number" or n < 0 or n % 1 ~= 0 then
    fail("INVALID_ARGUMENT", "quakes.largest: n must be a whole number from 0")
  end
  local rows = keep(events, has_magnitude)
  table.sort(rows, by_magnitude)
  for place = #rows, n + 1, -1 do rows[place] = nil end
  return mpreg.array(rows)
end

-- The event's place on a sphere of the Earth's radius, in km.
local function position(event)
  local latitude, longitude = math.rad(event.latitude), math.rad(event.longitude)
  local ring = EARTH_RADIUS_KM * math.cos(latitude)
  local up = EARTH_RADIUS_KM * math.sin(latitude)
  return { ring * math.cos(longitude), ring * math.sin(longitude), up }
end

-- Great circle at the surface and difference of depth, as the legs of a right angle. An unknown
-- depth leaves the great circle alone.
local function distance_km(p, q, a, b)
  local dx, dy, dz = p[1] - q[1], p[2] - q[2], p[3] - q[3]
  local half = math.sqrt(dx * dx + dy * dy + dz * dz) / (2 * EARTH_RADIUS_KM)
  local surface = 2 * EARTH_RADIUS_KM * math.asin(math.min(1, half))
  local known_depths = type(a.depth) == "number" and type(b.depth) == "number"
  local down = known_depths and a.depth - b.depth or 0
  return math.sqrt(surface * surface + down * down)
end

local function root_of(parents, i)
  while parents[i] ~= i do
    parents[i] = parents[parents[i]]
    i = parents[i]
  end
  return i
end

-- Joins all pairs within the window; returns each event's parent in a forest of clusters.
local function join_pairs(rows, positions, km, ms)
  local parents = {}
  for i = 1, #rows do parents[i] = i end
  for i = 1, #rows do
    local a, p = rows[i], positions[i]
    for j = i + 1, #rows do
      local b, q = rows[j], positions[j]
      if b.time - a.time > ms then break end
      if math.abs(p[3] - q[3]) <= km and distance_km(p, q, a, b) <= km then
        parents[root_of(parents, j)] = root_of(parents, i)
      end
    end
  end
  return parents
end

local function window(opts)
  opts = opts == nil and {} or opts
  if type(opts) ~= "table" then
    fail("INVALID_ARGUMENT", "quakes.link: the options must be a map, not " .. type(opts))
  end
  local function option(name, default)
    local value = opts[name]
    if value == nil or value == mpreg.null then return default end
    if type(value) ~= "number" or not (value > 0 and value < math.huge) then
      fail("INVALID_ARGUMENT", ("quakes.link: %s must be a number above 0"):format(name))
    end
    return value
  end
  local ms = option("days", LINK_DAYS) * DAY_MS
  return option("km", LINK_KM), ms, option("min_events", CLUSTER_EVENTS_MIN)
end

--- Groups earthquakes that lie close in space and time: two are linked if their hypocentres are at
--- most `km` apart and their times at most `days`; a cluster is what hangs together through links
--- (single link), if it has `min_events`. The fullest come first.
---@param events QuakeEvent[]  earthquakes; those without time or place fall out
---@param opts? table  { km, days, min_events }: 10, 1 and 5 if left out
---@return table[]  of { count, rows }
function quakes.link(events, opts)
  check_list(events, "quakes.link: events")
  local km, ms, min_events = window(opts)
  local rows = keep(events, is_located)
  table.sort(rows, by_time)
  local positions = {}
  for i, row in ipairs(rows) do positions[i] = position(row) end
  local parents = join_pairs(rows, positions, km, ms)

  local groups, of = {}, {}
  for i, row in ipairs(rows) do
    local root = root_of(parents, i)
    if not of[root] then
      of[root] = { count = 0, rows = {} }
      groups[#groups + 1] = of[root]
    end
    local group = of[root]
    group.count = group.count + 1
    group.rows[group.count] = row
  end
  local clusters = mpreg.array(keep(groups, function(group) return group.count >= min_events end))
  table.sort(clusters, function(a, b)
    if a.count ~= b.count then return a.count > b.count end
    return by_time(a.rows[1], b.rows[1])
  end)
  return clusters
end

--- Describes a cluster. It is a mainshock with its aftershocks if its largest earthquake stands at
--- least 0.8 above the second largest and at least half of the others follow it; otherwise a swarm.
---@param events QuakeEvent[]  the cluster's earthquakes, at least one
---@return QuakeCluster
function quakes.describe(events)
  check_list(events, "quakes.describe: events")
  local rows, ids, networks, seen = keep(events, is_located), mpreg.array {}, mpreg.array {}, {}
  if #rows == 0 then
    fail("INVALID_ARGUMENT", "quakes.describe: there is no event with time and place")
  end
  table.sort(rows, by_time)
  local ordered = quakes.largest(rows, #rows)
  local main, second = ordered[1] or rows[1], ordered[2]
  local place, radius = 1, 0
  for i, row in ipairs(rows) do
    ids[i] = row.id
    if row == main then place = i end
    if not seen[row.net] then
      seen[row.net] = true
      networks[#networks + 1] = row.net
    end
    radius = math.max(radius, distance_km(position(row), position(main), row, main))
  end
  table.sort(networks)
  local gap = second and math.floor((main.mag - second.mag) * 1e6 + 0.5) / 1e6
  local is_sequence = gap and gap >= MAINSHOCK_GAP and #rows - place >= place - 1
  return {
    kind = is_sequence and "mainshock-aftershock" or "swarm",
    count = #rows,
    place = main.place, latitude = main.latitude, longitude = main.longitude, depth = main.depth,
    first = rows[1].time, last = rows[#rows].time,
    hours = (rows[#rows].time - rows[1].time) / 3600000,
    largest = or_null(main.mag), largest_id = main.id, gap = or_null(gap),
    before = place - 1, after = #rows - place, radius_km = radius,
    networks = networks, events = ids,
  }
end

-- The report --------------------------------------------------------------------------------------

local function thousands(n)
  local text, changed = tostring(n), 1
  while changed > 0 do text, changed = text:gsub("^(%d+)(%d%d%d)", "%1,%2") end
  return text
end

local function utc(ms, format)
  return type(ms) == "number" and os.date("!" .. format, math.floor(ms / 1000)) or "unknown"
end

local function plural(n, noun)
  return ("%s %s%s"):format(thousands(n), noun, n == 1 and "" or "s")
end

local function width_of(text)       -- in characters of UTF-8
  local _, characters = text:gsub("[^\128-\191]", "")
  return characters
end

-- Lines of a table; columns whose title begins with ">" are flush right.
local function align(titles, rows)
  local widths, right = {}, {}
  for c, title in ipairs(titles) do
    right[c] = title:sub(1, 1) == ">"
    titles[c] = right[c] and title:sub(2) or title
    widths[c] = width_of(titles[c])
  end
  for _, row in ipairs(rows) do
    for c, cell in ipairs(row) do widths[c] = math.max(widths[c], width_of(cell)) end
  end
  local lines = {}
  for r = 0, #rows do
    local cells = {}
    for c, cell in ipairs(rows[r] or titles) do
      local gap = (" "):rep(widths[c] - width_of(cell))
      cells[c] = right[c] and gap .. cell or cell .. gap
    end
    lines[#lines + 1] = ("  " .. table.concat(cells, "  ")):gsub("%s+$", "")
  end
  return lines
end

local function number(value, format)
  return type(value) == "number" and format:format(value) or "–"
end

local function append(lines, more)
  for _, line in ipairs(more) do lines[#lines + 1] = line end
end

local function network_table(summaries)
  local rows, few = {}, false
  for i, s in ipairs(summaries) do
    local has_b = type(s.b_value) == "number"
    local indicative = has_b and s.complete_count < FEW_FOR_B
    few = few or indicative
    rows[i] = {
      s.name, NETWORKS[s.name] or "", thousands(s.count), thousands(s.earthquakes),
      thousands(s.explosions), thousands(s.quarry_blasts),
      number(s.largest, "%.1f"), number(s.completeness, "%.1f"),
      type(s.completeness) == "number" and thousands(s.complete_count) or "–",
      has_b and ("%.2f ± %.2f"):format(s.b_value, s.b_error) or "–      ", indicative and "*" or "",
    }
  end
  local lines = align({ "net", "region", ">events", ">quakes", ">expl.", ">blasts", ">largest",
    ">Mc", ">n ≥ Mc", ">b ± σ", "" }, rows)
  if few then
    lines[#lines + 1] = ("  * from fewer than %d earthquakes: indicative only"):format(FEW_FOR_B)
  end
  return lines
end

local function magnitude_types(summaries)
  local counts, names = {}, {}
  for _, s in ipairs(summaries) do
    for kind, count in pairs(s.magnitude_types) do
      if not counts[kind] then names[#names + 1] = kind end
      counts[kind] = (counts[kind] or 0) + count
    end
  end
  table.sort(names, function(a, b)
    if counts[a] ~= counts[b] then return counts[a] > counts[b] end
    return a < b
  end)
  for i, name in ipairs(names) do names[i] = name .. " " .. thousands(counts[name]) end
  return table.concat(names, ", ")
end

local function largest_table(events)
  local rows = {}
  for i, event in ipairs(events) do
    local place = known(event.place, "string") or "place unknown"
    if not is_earthquake(event) then place = ("%s  [%s]"):format(place, event.type) end
    rows[i] = { tostring(i), number(event.mag, "%.1f"), known(event.mag_type, "string") or "",
      utc(event.time, "%d %b %H:%M:%S"), number(event.depth, "%.0f km"), place, event.id }
  end
  return align({ ">#", ">M", "type", "time (UTC)", ">depth", "place", "id" }, rows)
end

local function span(hours)
  return hours < 48 and ("%.1f h"):format(hours) or ("%.1f d"):format(hours / 24)
end

local function cluster_table(clusters)
  local rows = {}
  for i, c in ipairs(clusters) do
    rows[i] = { thousands(c.count), number(c.largest, "%.1f"), number(c.gap, "%.1f"),
      c.kind == "swarm" and "swarm" or "main–aftershock", utc(c.first, "%d %b %H:%M"),
      span(c.hours), ("%.0f km"):format(c.radius_km), known(c.place, "string") or "place unknown" }
  end
  return align({ ">n", ">largest", ">gap", "kind", "begins (UTC)", ">lasts", ">radius",
    "place of the largest" }, rows)
end

local function headline(summaries, about)
  local sums = { count = 0, earthquakes = 0, explosions = 0, quarry_blasts = 0, other = 0 }
  for _, s in ipairs(summaries) do
    for key, sum in pairs(sums) do sums[key] = sum + s[key] end
  end
  local title = "SEISMICITY"
  if known(about.first, "number") and known(about.last, "number") then
    local format = "%d %B %Y %H:%M"
    title = ("%s, %s to %s UTC"):format(title, utc(about.first, format), utc(about.last, format))
    title = title:gsub("%f[%d]0(%d )", "%1")
  end
  return {
    title, "",
    ("%s read from %s: %s, %s, %s, %s of another or unknown type."):format(
      plural(sums.count, "event"), plural(#summaries, "network"),
      plural(sums.earthquakes, "earthquake"), plural(sums.explosions, "explosion"),
      plural(sums.quarry_blasts, "quarry blast"), thousands(sums.other)),
    "Completeness, b-values and clusters rest on the earthquakes alone.",
  }
end

local METHODS = {
  ("Mc: maximum curvature (bins of 0.1, the higher of equally full ones) + 0.2, from %d quakes on.")
    :format(MIN_FOR_COMPLETENESS),
  ("b: Aki–Utsu maximum likelihood on bins at or above Mc, σ after Shi & Bolt, from %d quakes on.")
    :format(MIN_FOR_B),
  "A dash: too few. Within a week Mc varies with place and hour: b is no more than a first look.",
}

local function cluster_section(clusters, opts)
  local km, ms, least = window(opts)
  local clustered, swarms = 0, 0
  for _, c in ipairs(clusters) do
    clustered = clustered + c.count
    if c.kind == "swarm" then swarms = swarms + 1 end
  end
  local lines = { "", "CLUSTERS", "",
    ("%s of %s in all: %s with aftershocks, %s."):format(plural(#clusters, "cluster"),
      plural(clustered, "earthquake"), plural(#clusters - swarms, "mainshock"),
      plural(swarms, "swarm")), "" }
  append(lines, cluster_table(clusters))
  append(lines, { "",
    ("Linked: hypocentres at most %g km and %g d apart (single link, all networks), %d or more.")
      :format(km, ms / DAY_MS, least),
    ("A mainshock stands at least %.1f above the second largest (gap), half the rest or more come")
      :format(MAINSHOCK_GAP),
    "after it; all else is called a swarm. Steady activity (geothermal fields, active faults)",
    "chains into one cluster; what began before the catalogue or outlasts it is cut off.",
  })
  return lines
end

--- Writes what was found as a text of aligned tables. All parts but the summaries are optional.
---@param summaries QuakeSummary[]  one of each network
---@param about? table  { first, last, largest: QuakeEvent[], clusters: QuakeCluster[], window }
---@return table  { text }
function quakes.report(summaries, about)
  check_list(summaries, "quakes.report: summaries")
  about = known(about, "table") or {}
  local lines = headline(summaries, about)
  append(lines, { "", "NETWORKS", "" })
  append(lines, network_table(summaries))
  append(lines, { "" })
  append(lines, METHODS)
  append(lines, {
    ("Magnitudes are as the networks give them, of mixed types: %s.")
      :format(magnitude_types(summaries)),
    "So b-values of two networks do not compare strictly, and NEIC's (us) mixes types within.",
  })
  if known(about.largest, "table") then
    append(lines, { "", "LARGEST EVENTS", "" })
    append(lines, largest_table(about.largest))
  end
  if known(about.clusters, "table") then
    append(lines, cluster_section(about.clusters, about.window))
  end
  return { text = table.concat(lines, "\n") .. "\n" }
end

local idempotent = { idempotent = true }

quakes._mpreg = {
  load = { needs = { "catalogue" }, timeout = "10s", idempotent = true },
  filter = idempotent, classify = idempotent, completeness = idempotent, b_value = idempotent,
  summary = idempotent, by_network = idempotent, largest = idempotent, link = idempotent,
  describe = idempotent, report = idempotent,
}

return quakes
