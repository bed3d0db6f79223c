#!/usr/bin/env python3
"""The figures of the quakes example, worked out a second time from their definitions.

It shares nothing with the Lua module: decimal fractions instead of whole hundredths, haversines
instead of chords, a walk over a table of neighbours instead of a forest of parents. What it prints
is kept in quakes_expected.json; make that anew, from the root of the repository, with

    python3 spec/lua/examples/quakes_check.py examples/quakes/data/week.json \
        > spec/lua/examples/quakes_expected.json
"""

import json
import math
import sys
from decimal import ROUND_FLOOR, Decimal

TENTH = Decimal("0.1")
EARTH_KM = 6371.0


def to_bin(magnitude):
    """Centre of the bin [centre - 0.05, centre + 0.05) that holds the magnitude."""
    return ((magnitude + TENTH / 2) / TENTH).to_integral_value(ROUND_FLOOR) * TENTH


def completeness(magnitudes):
    if len(magnitudes) < 50:
        return None
    bins = [to_bin(m) for m in magnitudes]
    return max(set(bins), key=lambda b: (bins.count(b), b)) + Decimal("0.2")


def b_value(magnitudes, mc):
    """Aki (1965) with Utsu's half bin, and Shi & Bolt's (1982) standard error."""
    if mc is None:
        return None, None, None
    bins = [float(to_bin(m)) for m in magnitudes if to_bin(m) >= mc]
    n = len(bins)
    if n < 30:
        return n, None, None
    mean = math.fsum(bins) / n
    b = 1 / (math.log(10) * (mean - (float(mc) - 0.05)))
    scatter = math.fsum((m - mean) ** 2 for m in bins) / (n * (n - 1))
    return n, b, math.log(10) * b ** 2 * math.sqrt(scatter)


def kilometres(a, b):
    (lon1, lat1, depth1), (lon2, lat2, depth2) = a, b
    phi1, phi2 = math.radians(lat1), math.radians(lat2)
    h = (math.sin((phi2 - phi1) / 2) ** 2
         + math.cos(phi1) * math.cos(phi2) * math.sin(math.radians(lon2 - lon1) / 2) ** 2)
    return math.hypot(2 * EARTH_KM * math.asin(math.sqrt(h)), depth1 - depth2)


def clusters(quakes):
    near = {i: set() for i in range(len(quakes))}
    for i, one in enumerate(quakes):
        for j in range(i):
            other = quakes[j]
            if abs(one["time"] - other["time"]) > 86400000:
                continue
            if abs(one["at"][1] - other["at"][1]) > 0.1:    # 11 km of latitude
                continue
            if kilometres(one["at"], other["at"]) <= 10:
                near[i].add(j)
                near[j].add(i)
    found, left = [], set(near)
    while left:
        todo, group = [left.pop()], []
        while todo:
            i = todo.pop()
            group.append(i)
            todo.extend(near[i] & left)
            left -= near[i]
        if len(group) >= 5:
            found.append(describe([quakes[i] for i in group]))
    return sorted(found, key=lambda c: (-c["count"], c["first"], c["events"][0]))


def describe(group):
    group.sort(key=lambda e: (e["time"], e["id"]))
    ranked = sorted(group, key=lambda e: (-e["mag"], e["time"], e["id"]))
    main, gap = ranked[0], ranked[0]["mag"] - ranked[1]["mag"]
    before = group.index(main)
    after = len(group) - 1 - before
    return {
        "kind": "mainshock-aftershock" if gap >= Decimal("0.8") and after >= before else "swarm",
        "count": len(group), "first": group[0]["time"], "last": group[-1]["time"],
        "largest": float(main["mag"]), "largest_id": main["id"], "place": main["place"],
        "gap": float(gap), "before": before, "after": after,
        "radius_km": max(kilometres(e["at"], main["at"]) for e in group),
        "networks": sorted({e["net"] for e in group}), "events": [e["id"] for e in group],
    }


def main(path):
    with open(path, encoding="utf-8") as source:
        features = json.load(source, parse_float=Decimal, parse_int=int)["features"]
    events = [{
        "id": f["id"], "net": f["properties"]["net"], "type": f["properties"]["type"],
        "time": f["properties"]["time"], "mag": Decimal(f["properties"]["mag"]),
        "mag_type": f["properties"]["magType"], "place": f["properties"]["place"],
        "at": [float(x) for x in f["geometry"]["coordinates"]],
    } for f in features]
    quakes = [e for e in events if e["type"] == "earthquake"]

    networks = {}
    for net in sorted({e["net"] for e in events}):
        own = [e for e in events if e["net"] == net]
        shaken = [e for e in quakes if e["net"] == net]
        magnitudes = [e["mag"] for e in shaken]
        mc = completeness(magnitudes)
        n, b, error = b_value(magnitudes, mc)
        kinds = [e["type"] for e in own]
        types = [e["mag_type"] for e in shaken]
        networks[net] = {
            "count": len(own), "earthquakes": len(shaken), "explosions": kinds.count("explosion"),
            "quarry_blasts": kinds.count("quarry blast"), "largest": float(max(e["mag"] for e in own)),
            "completeness": None if mc is None else float(mc), "complete_count": n,
            "b_value": b, "b_error": error,
            "magnitude_types": {kind: types.count(kind) for kind in sorted(set(types))},
        }

    largest = sorted(events, key=lambda e: (-e["mag"], e["time"], e["id"]))[:10]
    json.dump({
        "total": len(events), "earthquakes": len(quakes),
        "explosions": sum(e["type"] == "explosion" for e in events),
        "quarry_blasts": sum(e["type"] == "quarry blast" for e in events),
        "first": min(e["time"] for e in events), "last": max(e["time"] for e in events),
        "by_network": networks,
        "largest": [{"id": e["id"], "mag": float(e["mag"])} for e in largest],
        "clusters": clusters(quakes),
    }, sys.stdout, indent=1, sort_keys=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1])
