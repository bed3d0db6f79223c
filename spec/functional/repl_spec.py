"""`mpreg repl` on a terminal of its own, as somebody types at it. The executable is $MPREG_BIN, else
build/mpreg. Prints TAP."""
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time

from protocol_spec import BIN, GOAWAY, WAIT_S, Node, call_frame, eventually

TESTS = []
NODE = None
FOLDER = tempfile.mkdtemp(prefix="mpreg-repl-")
COLUMNS = 100
PATIENCE_S = 1  # so long the REPL waits for the node after one Ctrl-C


def test(f):
    TESTS.append(f)
    return f


def plain(text):
    """Without colours and movements of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z@]", "", text).replace("\r", "")


class Terminal:
    open = []

    def __init__(self, *args, node=None, state="state", **env):
        self.state = os.path.join(FOLDER, state)
        vars = dict(os.environ, TERM="xterm", HOME=FOLDER, XDG_STATE_HOME=self.state,
                    MPREG_NODE=(node or NODE).addr)
        for name in ("NO_COLOR", "LC_ALL", "LC_CTYPE", "LANG"):
            vars.pop(name, None)
        vars.update(env)
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(BIN, [BIN, "repl", *args], vars)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, COLUMNS, 0, 0))
        self.out = ""
        self.status = None
        self.is_closed = False
        Terminal.open.append(self)

    def read(self):
        """Takes what has come; false at the end."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.out += data.decode("utf-8", "replace")
        return True

    def expect(self, pattern):
        """Waits for the pattern, drops all up to its end, and gives the match."""
        deadline = time.monotonic() + WAIT_S
        while True:
            goes_on = self.read()
            seen = plain(self.out)
            found = re.search(pattern, seen, re.S)
            if found:
                self.out = seen[found.end():]
                return found
            assert goes_on and time.monotonic() < deadline, "no %r in %r" % (pattern, seen[-2000:])
            time.sleep(0.005)

    def prompt(self, name="n1"):
        return self.expect(r"(.*?)(?:^|\n)%s> $" % name).group(1)

    def type(self, text):
        os.write(self.fd, text.encode())

    def say(self, line, name="n1", is_timed=False):
        """Types a line, and gives what is shown from its end to the next prompt: without how long it
        took, which the first line of a session also says on a busy machine, since the session starts."""
        self.type(line + "\r")
        shown = self.expect(r"\n((?:[^\n]*\n)*)%s> $" % name).group(1)
        return shown if is_timed else re.sub(r"(?m)^[\d.]+ m?s\n\Z", "", shown)

    def end(self):
        """Waits for the end; gives its exit code."""
        def ended():
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = status
            return pid != 0
        eventually(ended, "the end of the REPL")
        self.read()
        self.close()
        return os.waitstatus_to_exitcode(self.status)

    def kill(self):
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.status = os.waitpid(self.pid, 0)[1]
        self.close()

    def close(self):
        if not self.is_closed:
            os.close(self.fd)
        self.is_closed = True


def started(*args, **more):
    t = Terminal(*args, **more)
    t.expect(r"mpreg [^\n]*\n[^\n]*\n")
    t.prompt()
    return t


@test
def it_says_where_it_is():
    t = Terminal()
    banner = t.prompt()
    assert "n1 (%s)" % NODE.addr in banner and "cluster default" in banner, banner
    assert "1 node" in banner
    t.type("\x04")
    assert t.end() == 0


@test
def values_are_shown_and_kept():
    t = started()
    assert t.say("1 + 1, 'a'") == '2\n"a"\n'
    assert t.say("x = 5") == ""
    assert t.say("x * 2") == "10\n"
    assert t.say("_ + 1") == "11\n"
    assert t.say("print('hi') io.write('there')") in ("hi\nthere\n", "hi\nthere\nuserdata: file\n")
    t.type("\x04")
    assert t.end() == 0


@test
def colours_are_for_terminals_that_have_them():
    t = Terminal()
    t.prompt()
    t.type("'a'\r")
    eventually(lambda: t.read() and '"a"' in t.out, "a value")
    assert "\x1b[" in t.out[t.out.index("\n"):], t.out
    t.kill()
    t = Terminal(NO_COLOR="1")
    t.prompt()
    t.type("'a'\r")
    eventually(lambda: t.read() and '"a"' in t.out, "a value")
    assert not re.search(r"\x1b\[[0-9;]+m", t.out), t.out
    t.kill()


@test
def what_has_begun_goes_on_in_the_next_line():
    t = started()
    t.type("for i = 1, 2 do\r")
    t.expect(r"\n\.\.> $")
    t.type("print(i)\r")
    t.expect(r"\n\.\.> $")
    assert t.say("end") == "1\n2\n"
    t.type("\x1b[A\r")  # up: the whole of it, as one entry
    assert t.expect(r"\n1\n2\n(?:n1> )$")
    t.kill()


@test
def characters_of_all_kinds_can_be_typed():
    t = started()
    assert t.say('"äöü€😀"') == '"äöü€😀"\n'
    t.type('"äxü"')
    t.type("\x1b[D\x1b[D\x7f")  # two to the left, and what stands before goes
    assert t.say("") == '"äü"\n'
    t.kill()


@test
def many_lines_come_at_once():
    t = started(state="paste")
    t.type("x = 1\ry = {\r1,\r2 }\r#y + x\r'done'\r")
    shown = t.expect(r"(.*)\n\"done\"\nn1> $").group(1)
    assert "\n3\n" in shown, shown
    with open(os.path.join(t.state, "mpreg", "history")) as f:
        assert f.read() == "x = 1\ny = {\\n1,\\n2 }\n#y + x\n'done'\n"
    t.kill()


@test
def a_resize_does_not_end_the_line():
    t = started()
    t.type("12345")
    t.expect("12345$")
    fcntl.ioctl(t.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 40, 0, 0))
    os.kill(t.pid, signal.SIGWINCH)
    t.type("67")
    assert "1234567\n" in t.say("")
    t.kill()


@test
def an_error_is_shown_with_its_place():
    t = started()
    shown = t.say("error 'no way'")
    assert shown.startswith("error: UNKNOWN/FUNCTION_ERROR: ") and "at repl:1" in shown, shown
    assert "SYNTAX_ERROR" in t.say("x = = 1")
    assert t.say("1") == "1\n"
    t.kill()


@test
def ctrl_c_drops_the_line():
    t = started(state="dropped")
    t.type("foo bar")
    t.type("\x1b[D\x1b[D\x03")
    t.expect(r"\^C\nn1> $")
    t.type("for i = 1, 2 do\r")
    t.expect(r"\n\.\.> $")
    t.type("\x03")
    t.prompt()
    assert t.say("7") == "7\n"
    t.type("\x1b[A\x1b[A\r")  # neither is in the history
    t.expect(r"\n7\nn1> $")
    t.kill()


@test
def ctrl_c_interrupts_what_runs_and_keeps_the_session():
    t = started()
    t.say("x = 42")
    for code in ("mpreg.sleep(60)", "while true do end"):
        t.type("print 'go' " + code + "\r")
        t.expect(r"\ngo\n")
        t.type("\x03")
        assert "CANCELLED/INTERRUPTED" in t.prompt()
    assert t.say("x") == "42\n"
    os.kill(t.pid, signal.SIGINT)  # at the prompt: as if typed
    t.prompt()
    t.type("\x04")
    assert t.end() == 0


# A loop inside C, which no hook interrupts.
STUCK = "print 'go' return (('a'):rep(30)):find(('a*'):rep(30) .. 'b')"


@test
def what_cannot_be_interrupted_costs_the_session_alone():
    t = started()
    t.say("x = 42")
    t.type(STUCK + "\r")
    t.expect(r"\ngo\n")
    t.type("\x03")
    assert "SESSION_LOST" in t.prompt()
    assert t.say("x") == "nil\n"
    t.kill()


@test
def a_second_ctrl_c_does_not_wait():
    t = started()
    t.type(STUCK + "\r")
    t.expect(r"\ngo\n")
    os.kill(NODE.process.pid, signal.SIGSTOP)  # else it may have ended the session first
    began = time.monotonic()
    try:
        while "the next line connects again" not in plain(t.out):
            assert time.monotonic() - began < PATIENCE_S, t.out
            t.type("\x03")  # not seen yet, or the same as the first one if both came at once
            until = time.monotonic() + 0.1
            while t.read() and "connects again" not in t.out and time.monotonic() < until:
                time.sleep(0.005)
    finally:
        os.kill(NODE.process.pid, signal.SIGCONT)
    t.prompt()
    assert "connected again: n1" in t.say("1")
    assert t.say("2") == "2\n"
    t.kill()


@test
def tab_completes():
    t = started()
    t.type("hello.gre\t")
    t.expect(r"hello\.greet$")
    assert t.say("('you')") == '"Hello, you!"\n'
    t.say("t = { abc = 1, abd = 2 }")
    t.type("t.a\t")
    t.expect(r"abc  abd\nn1> t\.ab$")
    assert t.say("d") == "2\n"
    t.type(":no\t")
    t.expect(r":nodes$")
    assert "alive" in t.say("")
    t.type(":deploy README.md examples/hel\t")
    t.expect(r"examples/hello/$")
    t.type("he\t")
    t.expect(r"hello\.lua$")
    t.type("\x03")
    t.prompt()
    t.type(":source hello.gr\t")
    t.expect(r":source hello\.greet$")
    t.type("\x03")
    t.prompt()
    t.type(":on \t")
    t.expect(r":on n1$")
    t.type("\x03")
    t.prompt()
    t.type("if true then\r")
    t.expect(r"\n\.\.> $")
    t.type("return hello.gre\t")
    t.expect(r"hello\.greet$")
    assert t.say("('me') end") == '"Hello, me!"\n'
    t.type("qwertz\t")
    assert t.say("") == "nil\n"
    t.kill()


@test
def the_history_outlives_the_session():
    t = started(state="history")
    t.say("1 + 2")
    t.type("for i = 1, 1 do\r")
    t.expect(r"\n\.\.> $")
    t.say("print 'once' end")
    t.type("\x04")
    assert t.end() == 0
    path = os.path.join(t.state, "mpreg", "history")
    assert os.stat(path).st_mode & 0o777 == 0o600
    with open(path) as f:
        assert f.read() == "1 + 2\nfor i = 1, 1 do\\nprint 'once' end\n"
    t = started(state="history")
    t.type("\x1b[A\r")
    t.expect(r"\nonce\nn1> $")
    t.type("\x1b[A\x1b[A\r")
    t.expect(r"\n3\nn1> $")
    t.kill()


@test
def what_takes_long_is_timed():
    t = started()
    assert re.search(r"\n[\d.]+ ms\n", "\n" + t.say("mpreg.sleep(0.15)", is_timed=True))
    assert re.search(r"^2\n[\d.]+ ms\n$", t.say(":time 1 + 1", is_timed=True))
    assert t.say("1 + 1", is_timed=True) == "2\n"
    t.kill()


@test
def commands_show_the_cluster():
    t = started()
    assert ":functions [PATTERN]" in t.say(":help")
    assert "hello.greet(name)" in t.say(":functions hello")
    assert "MODULE" in t.say(":modules")
    assert "WORKER" in t.say(":status")
    assert "Greets somebody." in t.say(":doc hello.greet")
    assert "did you mean :nodes?" in t.say(":ndoes")
    assert "did you mean hello.greet?" in t.say(":doc hello.gret")
    assert ":why needs RUN: none was run in this session" in t.say(":why")
    assert "cannot read x: No such file" in t.say(":deploy x")
    t.type(":quit\r")
    assert t.end() == 0


@test
def a_pipeline_runs_with_its_trace():
    graph = os.path.join(FOLDER, "graph.json")
    with open(graph, "w") as f:
        f.write('{"name": "g", "steps": [{"name": "a", "call": "mpreg.echo",'
                ' "args": [{"$ref": "input.x"}]}]}')
    t = started()
    shown = t.say(":run %s {\"x\": 5}" % graph)
    assert "{ a = 5 }" in shown and "Level 0" in shown and "succeeded" in shown, shown
    assert "cannot read" in t.say(":run %s @/no/such/file" % graph)
    assert "The run took" in t.say(":why")
    assert " g · succeeded · 1 level" in t.say(":trace")
    assert "step_succeeded   a" in t.say(":trace --follow")
    assert "RUN_SUCCEEDED" in t.say(":resume")
    assert "succeeded · done 1" in t.say(":cancel")
    run = re.search(r"(\w{26})  g  ", t.say(":runs")).group(1)
    t.type(":trace %s\t" % run[:25])
    t.expect(run + "$")
    assert " g · succeeded · 1 level" in t.say("")
    assert "UNKNOWN_RUN" in t.say(":why %s" % (run[:24] + "00"))
    t.kill()


@test
def messages_are_printed_until_an_interrupt():
    t = started()
    t.type(":sub a.*\r")
    t.expect(r"subscribed to a\.\* at n1")
    subprocess.run([BIN, "pub", "a.b", "5"], check=True, env=dict(os.environ, MPREG_NODE=NODE.addr))
    t.expect(r"a\.b 5")
    t.type("\x03")
    t.expect(r"n1> $")
    assert t.say("1 + 1") == "2\n"
    t.kill()


@test
def other_nodes_are_asked_and_gone_to():
    other = Node("--join", NODE.addr, name="n2")
    t = started()
    eventually(lambda: t.say(":nodes").count("alive") == 2, "two nodes")
    t.say("x = 1")
    shown = t.say(":all 1 + 1")
    assert shown == "n1 n2: 2\n", shown
    assert t.say(":all mpreg.node().name") == 'n1: "n1"\nn2: "n2"\n'
    assert "no node n3" in t.say(":on n3")
    assert "on n2 (%s), in a new session" % other.addr in t.say(":on n2", "n2")
    assert t.say("x, mpreg.node().name", "n2") == 'nil\n"n2"\n'
    other.process.kill()
    shown = t.say("1", "(?:n1|n2)")
    if "CONNECTION_LOST" in shown:
        shown = t.say("1", "n1")
    assert "connected again: n1 (%s)" % NODE.addr in shown, shown
    assert "variables" in shown and shown.endswith("1\n"), shown
    t.kill()
    other.process.wait()
    other.process.stdout.close()


def has_unread(pid, addr):
    """Whether something from a node waits for a process that does not read now."""
    inodes = set()
    for fd in os.listdir("/proc/%d/fd" % pid):
        link = os.readlink("/proc/%d/fd/%s" % (pid, fd))
        if link.startswith("socket:["):
            inodes.add(link[len("socket:["):-1])
    port = ":%04X" % int(addr.rsplit(":", 1)[1])
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return any(row[9] in inodes and row[2].endswith(port) and int(row[4].split(":")[1], 16) != 0
               for row in rows)


@test
def a_node_that_is_about_to_stop_is_left():
    stopping = Node("--join", NODE.addr, name="n4")
    t = Terminal(node=stopping)
    t.prompt("n4")
    eventually(lambda: len(re.findall("n[14] +alive", t.say(":nodes", "n4"))) == 2, "both nodes")
    with stopping.client() as c:
        c.send(call_frame(1, "mpreg.sleep", [2]))
        assert stopping.serves()
        stopping.process.send_signal(signal.SIGTERM)
        assert c.receive()[0] == GOAWAY
        eventually(lambda: has_unread(t.pid, stopping.addr), "the REPL's own GOAWAY")
        assert "connected again: n1" in t.say("mpreg.node().name", "n1")
    t.kill()
    stopping.process.wait()
    stopping.process.stdout.close()


@test
def without_any_node_it_goes_on_asking():
    node = Node(name="n1")
    t = started(node=node)
    node.process.kill()
    node.process.wait()
    node.process.stdout.close()
    eventually(lambda: "NO_NODE" in t.say("1"), "no node")
    assert t.say(":quti").startswith("error: INVALID_ARGUMENT/USAGE")
    t.type("\x04")
    assert t.end() == 0


@test
def the_terminal_is_left_as_it_was():
    t = started()
    t.type("half a li")
    t.expect("half a li$")
    os.kill(t.pid, signal.SIGTERM)
    eventually(lambda: termios.tcgetattr(t.fd)[3] & termios.ICANON, "line mode")
    assert t.end() == -signal.SIGTERM
    t = Terminal("-o", "json")
    t.expect('"reason":"USAGE"')
    assert t.end() == 2


def main():
    global NODE
    only = sys.argv[1] if len(sys.argv) > 1 else ""
    chosen = [f for f in TESTS if re.search(only, f.__name__)]
    NODE = Node("--load", "examples/hello", name="n1")
    failed = 0
    try:
        for number, f in enumerate(chosen, 1):
            name = f.__name__.replace("_", " ")
            try:
                f()
                print("ok %d - %s" % (number, name), flush=True)
            except Exception:  # whatever it is, the next test runs
                failed += 1
                import traceback
                print("not ok %d - %s" % (number, name))
                for line in traceback.format_exc().splitlines():
                    print("# " + line[:3000])
                sys.stdout.flush()
            for t in Terminal.open:
                t.kill()
            Terminal.open = []
    finally:
        status = NODE.stop()
        for process in Node.begun:
            process.kill()
        shutil.rmtree(FOLDER)
    number = len(chosen) + 1
    failed += status != 0
    print("%s %d - the node ends with status 0" % ("not ok" if status else "ok", number))
    print("1..%d" % number)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
