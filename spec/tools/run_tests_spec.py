"""The test runner counts what ran, and nothing that goes wrong passes unseen."""

import os
import shutil
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, "tools")
import run_tests  # noqa: E402

CASES = [
    # what, shell script, passed, skipped, texts of the failures in order, further arguments
    ("counts results", "echo ok 1 - a; echo 'ok 2 - # SKIP b'; echo 1..2", 1, 1, []),
    ("counts several plans", "echo 1..1; echo ok 1 - a; echo 1..1; echo ok 1 - b", 2, 0, []),
    ("counts failures", "echo ok 1 - a; echo not ok 2 - b; echo 1..2; exit 1", 1, 0, ["b"]),
    ("sees a missing plan", "echo ok 1 - a", 1, 0, ["no TAP plan"]),
    ("sees a death before the plan", "echo ok 1 - a; kill -SEGV $$", 1, 0, ["no TAP plan, ended by SIGSEGV"]),
    ("sees a death after the plan", "echo 1..1; echo ok 1 - a; kill -SEGV $$", 1, 0, ["ended by SIGSEGV"]),
    ("sees tests that never ran", "echo 1..3; echo ok 1 - a", 1, 0, ["3 tests planned, 1 ran"]),
    ("sees an empty suite", "echo 1..0", 0, 0, ["ran nothing"]),
    ("sees an exit status alone", "echo 1..1; echo ok 1 - a; exit 3", 1, 0, ["exit status 3"]),
    ("sees what hangs", "echo 1..1; sleep 60", 0, 0, ["not done after 1 s"], {"timeout": 1}),
    ("sees a process left behind", "sleep 60 >/dev/null & echo 1..1; echo ok 1 - a", 1, 0,
     ["left a process behind"]),
    ("sees a sanitizer's report", 'echo bad >${ASAN_OPTIONS##*log_path=}.7; echo 1..1; echo ok 1 - a',
     1, 0, ["a sanitizer reported"], {"build": "asan"}),
    ("counts a plain program as one", "exit 0", 1, 0, [], {"tap": False}),
    ("counts a plain program that fails", "exit 2", 0, 0, ["exit status 2"], {"tap": False}),
    ("sees a program that is not there", None, 0, 0, ["cannot start"]),
]


def run(name, script, **options):
    command = ["sh", "-c", script] if script else ["/nonexistent"]
    return run_tests.run_unit(run_tests.Unit("spec", name, command, **options))


def main():
    run_tests.LOGS = tempfile.mkdtemp()
    run_tests.LEFTOVER_GRACE = 0.2
    failed = 0
    for number, (what, script, passed, skipped, failures, *options) in enumerate(CASES, 1):
        result = run(what, script, **(options[0] if options else {}))
        titles = [title for title, _, _ in result.failures]
        good = (result.passed == passed and result.skipped == skipped and len(titles) == len(failures)
                and all(text in title for text, title in zip(failures, titles)))
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - the runner {what}")
        if not good:
            print(f"# passed {result.passed}, skipped {result.skipped}, failures {titles}")
    print(f"1..{len(CASES)}")
    shutil.rmtree(run_tests.LOGS)
    return 1 if failed else 0


if __name__ == "__main__":
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
    sys.exit(main())
