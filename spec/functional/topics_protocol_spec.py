"""Topics over the native protocol, by a client written from docs/protocol.md alone: frames that are wrong, and
clients that do not read. Prints TAP.
"""
import select
import struct
import sys
import time

import protocol_spec as p
from protocol_spec import CALL, CANCEL, ERROR, EVENT, PREFACE, RESULT, frame, pack, test, unpack

PUBLISH, SUBSCRIBE, MESSAGES = 6, 7, 20
SUBSCRIPTIONS_MAX = 16384


def publish_frame(number, messages):
    return frame(PUBLISH, number, pack([]), pack(messages))


def subscribe_frame(number, pattern, options=None):
    return frame(SUBSCRIBE, number, pack([pattern, options or {}]))


class Subscriber(p.Client):
    def receive_frame(self):
        """(type, id, meta, value) of the next frame."""
        size, kind, flags, meta_size, number = struct.unpack("<IBBHQ", self.read(16))
        body = self.read(size)
        assert flags == 0 and meta_size <= size
        meta, payload = body[:meta_size], body[meta_size:]
        return (kind, number, unpack(meta) if meta else None, unpack(payload) if payload else None)

    def subscribe(self, number, pattern, options=None):
        self.send(subscribe_frame(number, pattern, options))
        kind, got, _, value = self.receive_frame()
        assert (kind, got, value) == (EVENT, number, {"subscribed": pattern, "node": "n1"}), value

    def refused(self, data, number, code, reason):
        self.send(data)
        kind, got, _, value = self.receive_frame()
        assert (kind, got) == (ERROR, number), (kind, got, value)
        assert (value["code"], value["reason"]) == (code, reason), value
        return value


def client():
    return Subscriber(p.NODE.addr)


@test
def a_message_comes_to_each_subscription_that_matches():
    with client() as c, client() as other:
        c.subscribe(7, "wire.#")
        c.subscribe(8, "wire.*")
        other.send(publish_frame(3, [["wire.a", {"x": 1}], ["wire.a.b", b"\0\xff"]]))
        kind, number, _, value = other.receive_frame()
        assert (kind, number, value["publisher"], value["count"]) == (RESULT, 3, "n1", 2), value
        last = value["seq"]
        got = {7: [], 8: []}
        while len(got[7]) < 2 or len(got[8]) < 1:
            kind, number, meta, messages = c.receive_frame()
            assert (kind, meta[0], meta[1]) == (MESSAGES, "n1", 0), (kind, meta)
            got[number] += messages
        assert [m[:2] + m[3:] for m in got[7]] == [["wire.a", last - 1, {"x": 1}],
                                                   ["wire.a.b", last, b"\0\xff"]], got
        assert [m[1] for m in got[8]] == [last - 1]
        assert abs(got[7][0][2] - time.time() * 1000) < 60000


@test
def a_cancelled_subscription_ends_and_the_connection_goes_on():
    with client() as c:
        c.subscribe(1, "wire.cancel")
        c.send(frame(CANCEL, 1))
        kind, number, _, value = c.receive_frame()
        assert (kind, number, value["code"]) == (ERROR, 1, "CANCELLED"), value
        c.send(publish_frame(2, [["wire.cancel", 1]]))
        kind, number, _, _ = c.receive_frame()
        assert (kind, number) == (RESULT, 2)
        c.subscribe(1, "wire.cancel")  # the id is free again


@test
def an_id_is_of_one_subscription():
    with client() as c:
        c.subscribe(1, "wire.id")
        c.refused(subscribe_frame(1, "wire.other"), 1, "ALREADY_EXISTS", "BAD_REQUEST")
        c.send(publish_frame(2, [["wire.id", 1]]))
        kinds = sorted(c.receive_frame()[:2] for _ in range(2))
        assert kinds == [(RESULT, 2), (MESSAGES, 1)], kinds


@test
def what_is_no_list_of_messages_is_refused():
    with client() as c:
        for payload in (b"", b"\xc0", b"\x01", pack({}), pack([1]), pack([[]]), pack([["wire.a"]]),
                        pack([["wire.a", 1, 2]]), pack([[1, 2]]), b"\x92\x92\xa1a\x01",
                        b"\xdd\xff\xff\xff\xff", pack([["wire.a", 1]]) + b"\x01"):
            c.send(frame(PUBLISH, 5, pack([]), payload))
            kind, number, _, value = c.receive_frame()
            assert (kind, number, value["code"]) == (ERROR, 5, "INVALID_ARGUMENT"), value
        value = c.refused(publish_frame(6, [["wire.a", 1], ["wire.b", 2], ["wire..c", 3]]), 6,
                          "INVALID_ARGUMENT", "BAD_TOPIC")
        assert "2" in value["message"], value  # which one


@test
def what_is_no_subscription_is_refused():
    with client() as c:
        for meta in (b"", b"\xc1", pack([]), pack([1, {}]), pack(["wire.a", {"nonsense": 1}]),
                     pack(["wire.a", {"since_ms": "long"}]), pack({})):
            c.send(frame(SUBSCRIBE, 5, meta))
            kind, number, _, value = c.receive_frame()
            assert (kind, number, value["code"]) == (ERROR, 5, "INVALID_ARGUMENT"), (meta, value)
        for pattern in ("", "a..b", "a.b#", "ä", "x" * 65, ".".join("a" * 33)):
            c.refused(subscribe_frame(6, pattern), 6, "INVALID_ARGUMENT", "BAD_TOPIC")


@test
def a_request_without_an_id_and_messages_of_a_client_end_the_connection():
    for data in (publish_frame(0, [["wire.a", 1]]), subscribe_frame(0, "wire.a"),
                 frame(MESSAGES, 1, pack(["n1", 0, 0]), pack([]))):
        with client() as c:
            c.send(data)
            kind, number, _, value = c.receive_frame()
            assert (kind, number, value["reason"]) == (ERROR, 0, "PROTOCOL"), value


@test
def a_large_message_travels_whole():
    with client() as c, client() as other:
        c.subscribe(1, "wire.large")
        data = bytes(range(256)) * 12000  # 3 MB
        other.send(publish_frame(2, [["wire.large", data], ["wire.large", 1]]))
        assert other.receive_frame()[0] == RESULT
        got = []
        while len(got) < 2:
            kind, _, meta, messages = c.receive_frame()
            assert kind == MESSAGES and meta[1] == 0
            got += [m[3] for m in messages]
        assert got == [data, 1]


@test
def who_does_not_read_can_still_cancel():
    with client() as c, client() as other:
        c.subscribe(1, "wire.flood")
        data = b"x" * 60000
        for number in range(1, 700):  # 42 MB: more than sockets and queues hold
            other.send(publish_frame(number, [["wire.flood", data]]))
            assert other.receive_frame()[0] == RESULT
        c.send(frame(CANCEL, 1) + p.call_frame(2, "mpreg.echo", [5]))
        dropped = seen = 0
        ends = []
        while len(ends) < 2:
            kind, number, meta, value = c.receive_frame()
            if kind == MESSAGES:
                dropped += meta[1]
                seen += len(value)
            else:
                ends.append((kind, number))
        assert sorted(ends) == [(RESULT, 2), (ERROR, 1)], ends
        assert seen * len(data) < 20e6, seen  # the rest was not written after the CANCEL
        assert p.NODE.rss_kib() < 400000 * (4 if p.SANITIZED else 1)


@test
def subscriptions_do_not_keep_a_connection_from_being_read():
    with client() as c:
        frames = b"".join(subscribe_frame(i, "wire.s%d" % i)
                          for i in range(1, SUBSCRIPTIONS_MAX + 1))
        c.send(frames)
        for _ in range(SUBSCRIPTIONS_MAX):
            assert c.receive_frame()[0] == EVENT
        c.refused(subscribe_frame(99999, "wire.more"), 99999, "RESOURCE_EXHAUSTED",
                  "TOO_MANY_SUBSCRIPTIONS")
        for i in range(3):
            c.send(p.call_frame(100000 + i, "mpreg.echo", [i]))
            kind, number, _, value = c.receive_frame()
            assert (kind, number, value) == (RESULT, 100000 + i, i)
        c.send(frame(CANCEL, 17))
        kind, number, _, value = c.receive_frame()
        assert (kind, number, value["code"]) == (ERROR, 17, "CANCELLED")
        c.subscribe(17, "wire.again")


@test
def a_subscriber_that_goes_leaves_nothing():
    for _ in range(50):
        with client() as c:
            c.subscribe(1, "wire.gone")
            c.send(publish_frame(2, [["wire.gone", b"x" * 1000]] * 100))
    with client() as c:
        deadline = time.time() + p.WAIT_S
        while True:
            c.send(frame(p.QUERY, 9, pack(["status", None])))
            status = c.receive_frame()[3]
            if status["topics"]["subscriptions"] == 0:
                break
            assert time.time() < deadline, status["topics"]
            select.select([], [], [], 0.02)


if __name__ == "__main__":
    sys.exit(p.main([f for f in p.TESTS if f.__module__ == "__main__"]))
