#!/usr/bin/env python3
"""Builds and runs every test, quietly, and prints one summary. Called by tools/test.sh.

A *part* is a line of the summary ("C specs"), a *unit* one process of it (one spec file). Units
print TAP; the counts come from there. A unit also fails when it dies, stops without its plan, runs
nothing, leaves a process behind (all it starts inherits MPREG_TEST_UNIT), or when a sanitizer wrote
a report. Parts that measure time run alone, the others two at a time. How long each unit took stands
in build/test/times, the longest first.

    tools/run_tests.py [--only REGEX] [--list] [--jobs N]
"""

import argparse
import collections
import glob
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LOGS = "build/test"
LPATH = "lua/?.lua;lua/?/init.lua;modules/?.lua;tools/?.lua"
# Run by its interpreter: its own --lua goes through a shell that takes --lpath apart.
BUSTED = shutil.which("busted") or "busted"
FUZZ_SECONDS = 4
LEFTOVER_GRACE = 3.0  # seconds in which processes of an ended unit may still be going away

# Crashes that a spec provokes must look as they do without a sanitizer, hence no handlers; a report
# ends the process and is kept in a file, so that no spec can swallow it.
SANITIZER = {
    "ASAN_OPTIONS": "abort_on_error=1:handle_segv=0:handle_sigbus=0:handle_abort=0:handle_sigfpe=0"
                    ":handle_sigill=0:detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
}

# Not reports: the second is the leak checker's, of a process that was killed while it looked.
SANITIZER_NOTE = re.compile(r"external symbolizer|Unable to get registers from thread")

BUILDS = {
    "release": ("build", [], ["all", "specs"]),
    "asan": ("build-asan", ["--preset", "asan"], ["all", "specs"]),
    "fuzz": ("build-fuzz", ["--preset", "fuzz"], ["fuzzers"]),
}


class Unit:
    """One process that tests something."""

    def __init__(self, part, name, command, build=None, env=None, tap=True, timeout=180):
        self.part = part
        self.name = name
        self.command = command
        self.build = build
        self.env = dict(env or {})
        self.tap = tap
        self.timeout = timeout

    @property
    def id(self):
        return f"{self.part}/{self.name}"

    def repeat(self, test=None):
        """The command that runs this unit, or one test of it, again."""
        if self.build in ("asan", "fuzz"):  # their options are long; the runner knows them
            pattern = re.sub(r"([].^$*+?{}\[|()\\])", r"\\\1", self.id)
            return f"tools/run_tests.py --only '^{pattern}$'"
        command = list(self.command)
        if test and BUSTED in command:
            pattern = re.sub(r"([^\w\s])", r"%\1", test)
            command[-1:] = ["--filter=" + pattern, command[-1]]
        words = [f"{k}={shlex.quote(v)}" for k, v in sorted(self.env.items())]
        return " ".join(words + [shlex.quote(w) for w in command])


class Result:
    """What a unit came to."""

    def __init__(self):
        self.passed = 0
        self.skipped = 0
        self.failures = []  # (title, detail lines, name of the single test or None)
        self.seconds = 0.0

    def fail(self, title, detail=(), test=None):
        self.failures.append((title, list(detail), test))


# --- reading TAP ---

TAP_RESULT = re.compile(r"^(not )?ok (\d+)\b(?:\s+-)?\s*(.*)$")
TAP_PLAN = re.compile(r"^1\.\.(\d+)\s*$")
BUSTED_START = re.compile(r"^# \S+ @ \d+: ")


def read_tap(lines, result):
    """Counts results; returns (planned or None, seen)."""
    planned, seen, open_failure = None, 0, None
    for line in lines:
        plan = TAP_PLAN.match(line)
        match = TAP_RESULT.match(line)
        if plan:
            planned = (planned or 0) + int(plan.group(1))
            open_failure = None
        elif match:
            seen += 1
            open_failure = None
            name = match.group(3)
            if match.group(1):
                result.fail(name or f"test {match.group(2)}", test=name)
                open_failure = result.failures[-1][1]
            elif re.search(r"#\s*SKIP", line, re.IGNORECASE):
                result.skipped += 1
            else:
                result.passed += 1
        elif open_failure is not None and line.startswith("#") and not BUSTED_START.match(line):
            open_failure.append(line[1:].strip("\n"))
        elif not line.startswith("#"):
            open_failure = None
    return planned, seen


# --- processes ---

def marked(token):
    """Processes whose environment carries this unit's token: [(pid, command line)]."""
    wanted = f"MPREG_TEST_UNIT={token}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                if wanted not in file.read().split(b"\0"):
                    continue
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                line = file.read().replace(b"\0", b" ").decode(errors="replace").strip()
            with open(f"/proc/{entry}/stat", "rb") as file:
                state = file.read().rsplit(b")", 1)[1].split()[0]
            if state not in (b"Z", b"X"):
                found.append((int(entry), line))
        except OSError:
            continue  # it has ended meanwhile, or is another user's
    return found


def end_leftovers(token, result):
    until = time.monotonic() + LEFTOVER_GRACE
    left = marked(token)
    while left and time.monotonic() < until:
        time.sleep(0.05)
        left = marked(token)
    for pid, line in left:
        result.fail(f"left a process behind: {pid} {line}")
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            pass


def exit_text(status):
    if status < 0:
        return f"ended by {signal.Signals(-status).name}"
    return f"exit status {status}"


def tail(lines, count=40):
    return [line.rstrip("\n") for line in lines[-count:]]


def run_unit(unit):
    result = Result()
    stem = os.path.join(LOGS, re.sub(r"[^\w.-]+", "_", unit.id))
    token = f"{os.getpid()}-{os.path.basename(stem)}"
    environment = dict(os.environ, MPREG_TEST_UNIT=token, CMOCKA_MESSAGE_OUTPUT="TAP", LC_ALL="C.UTF-8",
                       **unit.env)
    reports = stem + ".sanitizer"
    if unit.build in ("asan", "fuzz"):
        for name in SANITIZER:
            environment[name] = unit.env.get(name, SANITIZER[name]) + ":log_path=" + os.path.abspath(reports)
    began = time.monotonic()
    status, late = None, False
    with open(stem + ".log", "wb") as log:
        try:
            process = subprocess.Popen(unit.command, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, env=environment,
                                       start_new_session=True)
        except OSError as error:
            result.fail(f"cannot start: {error}")
            return result
        try:
            status = process.wait(unit.timeout)
        except subprocess.TimeoutExpired:
            late = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pid, _ in marked(token):
                os.kill(pid, signal.SIGKILL)
    result.seconds = time.monotonic() - began
    end_leftovers(token, result)
    with open(stem + ".log", encoding="utf-8", errors="replace") as log:
        lines = log.readlines()
    judge(unit, result, lines, status, late)
    for report in sorted(glob.glob(glob.escape(reports) + ".*")):
        with open(report, encoding="utf-8", errors="replace") as file:
            told = [line for line in file if not SANITIZER_NOTE.search(line)]
        if told:
            result.fail("a sanitizer reported", told[:60])
    return result


def judge(unit, result, lines, status, late):
    planned, seen = read_tap(lines, result)
    if late:
        result.fail(f"not done after {unit.timeout} s", tail(lines))
    elif unit.tap or planned is not None:
        bad = any(test for _, _, test in result.failures)
        if planned is None:
            result.fail(f"no TAP plan, {exit_text(status)}", tail(lines))
        elif planned != seen:
            result.fail(f"{planned} tests planned, {seen} ran, {exit_text(status)}", tail(lines))
        elif seen == 0:
            result.fail("ran nothing", tail(lines))
        elif status != 0 and not bad:
            result.fail(exit_text(status), tail(lines))
    elif status == 0:
        result.passed += 1
    else:
        result.fail(exit_text(status), tail(lines))


# --- what there is ---

def find(pattern):
    return sorted(glob.glob(pattern, recursive=True))


def c_units(build):
    folder = BUILDS[build][0]
    for path in find("spec/c/**/*_test.c"):
        name = path[len("spec/c/"):-len(".c")].replace("/", "-").replace(".", "-")
        yield Unit(part_of("C specs", build), name, [f"{folder}/spec/{name}"], build, timeout=300)


def busted(path, lua):
    return [lua, BUSTED, "-o", "TAP", "-v", f"--lpath={LPATH}", path]


def lua_of(build):
    """Specs of the Lua library run in an interpreter that has our C bindings in it."""
    return f"{BUILDS[build][0]}/spec/spec-lua" if os.path.exists("spec/support/lua.c") else "luajit"


def sanitized(build):
    """What specs are told of the build: with sanitizers all is slower."""
    return {"MPREG_SANITIZED": "1"} if build == "asan" else {}


def lua_units(build):
    for path in find("spec/lua/**/*_spec.lua"):
        name = path[len("spec/lua/"):-len("_spec.lua")]
        yield Unit(part_of("Lua specs", build), name, busted(path, lua_of(build)), build,
                   {"MPREG_BUILD": BUILDS[build][0], **sanitized(build)}, timeout=300)


def functional_units(build):
    folder = BUILDS[build][0]
    env = {"MPREG_BIN": os.path.join(ROOT, folder, "mpreg"), "MPREG_BUILD": folder, **sanitized(build)}
    part = part_of("functional", build)
    for path in find("spec/functional/**/*_spec.lua"):
        name = path[len("spec/functional/"):-len("_spec.lua")]
        yield Unit(part, name, busted(path, lua_of(build)), build, env, timeout=600)
    for path in find("spec/functional/**/*_spec.py"):
        name = path[len("spec/functional/"):-len("_spec.py")]
        yield Unit(part, name + ".py", ["python3", path], build, env, timeout=600)


def sim_units(build):
    """The simulator's worlds: scenarios, figures, fresh seeds."""
    folder = BUILDS[build][0]
    env = {"MPREG_BIN": os.path.join(ROOT, folder, "mpreg"), "MPREG_BUILD": folder}
    for path in find("spec/sim/*_spec.lua"):
        name = os.path.basename(path)[:-len("_spec.lua")]
        yield Unit(part_of("simulator", build), name, busted(path, lua_of(build)), build, env, timeout=300)


def fuzz_units():
    for path in find("spec/fuzz/*_fuzz.c"):
        name = os.path.basename(path)[:-len(".c")]
        yield Unit("fuzz", name, ["tools/fuzz.sh", "--no-build", str(FUZZ_SECONDS), f"^{name}$"], "fuzz",
                   tap=False)


def check_units():
    yield Unit("checks", "static", ["tools/check.sh"], "release", timeout=300)
    for path in find("spec/tools/*_spec.lua"):
        name = os.path.basename(path)[:-len("_spec.lua")]
        yield Unit("checks", name, busted(path, "luajit"), "release")
    for path in find("spec/tools/*_spec.py"):
        name = os.path.basename(path)[:-len("_spec.py")]
        yield Unit("checks", name + ".py", ["python3", path])


def part_of(part, build):
    return part if build == "release" else f"{part}, {build}"


# Functional specs that measure time, or what a busy machine does to others; the second ones have
# bounds that are too wide to be reached in a sanitizer build.
MEASURING = {"processes", "supervision", "neighbours", "cluster_times", "cluster_calls"}
MEASURING_FAST = MEASURING | {"node_faults", "relay", "runs", "cancel", "limits", "deploy_faults",
                              "deploy_soak", "protocol.py", "repl.py"}


def apart(units, measuring):
    """Two stages: those that run alone, and the rest."""
    units = list(units)
    return [(False, [u for u in units if u.name in measuring]),
            (True, [u for u in units if u.name not in measuring])]


def stages():
    """[(may units run beside one another, units)]"""
    return [
        (True, [*sim_units("release"), *check_units(), *c_units("release"), *lua_units("release")]),
        *apart(functional_units("release"), MEASURING_FAST),
        (True, [*c_units("asan"), *lua_units("asan"), *fuzz_units()]),
        *apart(functional_units("asan"), MEASURING),
    ]


# --- building ---

def build_step(build):
    """Configures and builds; None, or the output's tail when that failed."""
    folder, preset, targets = BUILDS[build]
    log_path = os.path.join(LOGS, f"build-{build}.log")
    commands = [["cmake", "--build", folder, "--parallel", str(os.cpu_count() or 1), "--target", *targets]]
    if preset or not os.path.exists(f"{folder}/CMakeCache.txt"):
        commands.insert(0, ["cmake", *(preset or ["-S", ".", "-B", folder])])
    with open(log_path, "wb") as log:
        for command in commands:
            if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                              check=False).returncode != 0:
                break
        else:
            return None
    with open(log_path, encoding="utf-8", errors="replace") as log:
        lines = log.readlines()
    errors = [i for i, line in enumerate(lines) if re.search(r"error:|undefined reference", line)]
    start = max(0, errors[0] - 2) if errors else max(0, len(lines) - 40)
    return [line.rstrip("\n") for line in lines[start:start + 40]]


# --- running and reporting ---

class Report:
    def __init__(self):
        self.lock = threading.Lock()
        self.parts = collections.OrderedDict()  # part → [passed, failed, skipped, seconds]
        self.times = []  # (seconds, unit or build)
        self.tty = sys.stderr.isatty()

    def row(self, part):
        return self.parts.setdefault(part, [0, 0, 0, 0.0])

    def progress(self, text):
        if self.tty:
            sys.stderr.write("\r\033[K" + text)
            sys.stderr.flush()

    def add(self, unit, result):
        with self.lock:
            row = self.row(unit.part)
            row[0] += result.passed
            row[1] += len(result.failures)
            row[2] += result.skipped
            row[3] += result.seconds
            self.times.append((result.seconds, unit.id))
            self.progress(f"{unit.id}: {result.passed} passed, {len(result.failures)} failed")
            if result.failures:
                self.progress("")
            for title, detail, test in result.failures:
                print(f"FAILED {unit.id}: {title}")
                for line in detail:
                    print(f"    {line.rstrip()}")
                print(f"    again: {unit.repeat(test)}", flush=True)

    def add_build(self, build, seconds, fault):
        row = self.row(f"build {build}")
        row[3] += seconds
        self.times.append((seconds, f"build {build}"))
        if fault is not None:
            row[1] += 1
            self.progress("")
            print(f"FAILED build {build}")
            for line in fault:
                print(f"    {line}", flush=True)

    def summary(self, began):
        self.progress("")
        with open(os.path.join(LOGS, "times"), "w", encoding="utf-8") as file:
            file.writelines(f"{seconds:8.1f}  {what}\n" for seconds, what in sorted(self.times, reverse=True))
        total = [0, 0, 0]
        width = max([len(part) for part in self.parts] + [4])
        print(f"\n{'part':<{width}}  passed  failed  skipped  seconds")
        for part, (passed, failed, skipped, seconds) in self.parts.items():
            print(f"{part:<{width}}  {passed:>6}  {failed:>6}  {skipped:>7}  {seconds:>7.1f}")
            total = [total[0] + passed, total[1] + failed, total[2] + skipped]
        print(f"{time.monotonic() - began:.0f} s in all")
        skipped = f", {total[2]} skipped" if total[2] else ""
        print(f"{total[0]} passed, {total[1]} failed{skipped}", flush=True)
        return total


def run_all(units, jobs, report):
    queue = collections.deque(units)
    lock = threading.Lock()

    def lane():
        while True:
            with lock:
                if not queue:
                    return
                unit = queue.popleft()
            try:
                result = run_unit(unit)
            except Exception as error:  # a fault of the runner is a failed unit, never a lost one
                result = Result()
                result.fail(f"the runner failed: {error!r}")
            report.add(unit, result)

    lanes = [threading.Thread(target=lane) for _ in range(jobs)]
    for thread in lanes:
        thread.start()
    for thread in lanes:
        thread.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", metavar="REGEX", default="",
                        help="only units whose PART/NAME matches")
    parser.add_argument("--list", action="store_true", help="list the units and end")
    parser.add_argument("--jobs", type=int, default=2, help="units side by side (2)")
    options = parser.parse_args()
    os.chdir(ROOT)
    selected = [(beside, [u for u in units if re.search(options.only, u.id)])
                for beside, units in stages()]
    if options.list:
        for _, units in selected:
            for unit in units:
                print(unit.id)
        return 0
    began = time.monotonic()
    shutil.rmtree(LOGS, ignore_errors=True)
    os.makedirs(LOGS)
    report = Report()
    built, broken = set(), set()
    for beside, units in selected:
        for build in [b for b in BUILDS if any(u.build == b for u in units) and b not in built]:
            report.progress(f"building {build}")
            start = time.monotonic()
            fault = build_step(build)
            report.add_build(build, time.monotonic() - start, fault)
            built.add(build)
            if fault is not None:
                broken.add(build)
        for unit in [u for u in units if u.build in broken]:
            result = Result()
            result.fail("not run: its build failed")
            report.add(unit, result)
        units = [u for u in units if u.build not in broken]
        run_all(units, options.jobs if beside else 1, report)
    passed, failed, _ = report.summary(began)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
