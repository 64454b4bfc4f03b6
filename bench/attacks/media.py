"""Attacks the port that all viewers' media goes through: by a viewer, and by a runner that was taken over
(its descriptors, copied). Tells of each attack what it got, or null, as JSON.

Of STUN (RFC 8489), ICE (RFC 8445) and DTLS (RFC 6347) only what a viewer's first packets need."""

import ctypes
import hmac
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
import zlib

COOKIE = 0x2112A442
PIDFD_OPEN, PIDFD_GETFD = 434, 438
OFFER = "\r\n".join([
    "v=0", "o=- 1 1 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0", "m=video 9 UDP/TLS/RTP/SAVPF 98",
    "c=IN IP4 0.0.0.0", "a=ice-ufrag:ours", "a=ice-pwd:0123456789abcdef01234567",
    "a=fingerprint:sha-256 " + ":".join(["AB"] * 32), "a=setup:active", "a=mid:0", "a=recvonly", "a=rtcp-mux",
    "a=rtpmap:98 VP9/90000", "a=rtcp-fb:98 nack pli", ""])


class Viewer:
    """A viewer of one session: the link's cookie, and what the session's answer to an offer says."""

    def __init__(self, host, session, cookie=None, key=None):
        self.url = f"http://{host}/api/webrtc/session/{session}/offer"
        right = {"Authorization": f"Bearer {key}"} if key else {"Cookie": cookie}
        self.headers = {"Origin": f"http://{host}", "Content-Type": "application/json"} | right
        self.socket = udp()
        self.offer()

    def offer(self):
        body = json.dumps({"type": "offer", "sdp": OFFER}).encode()
        with urllib.request.urlopen(urllib.request.Request(self.url, body, self.headers), timeout=30) as answer:
            lines = json.load(answer)["sdp"].splitlines()
        said = dict(line[2:].split(":", 1) for line in lines if line.startswith("a=") and ":" in line)
        self.fragment, self.password = said["ice-ufrag"], said["ice-pwd"]
        address, port = next(line for line in lines if line.startswith("a=candidate")).split()[4:6]
        self.port = (address, int(port))

    def request(self, password=None):
        def attribute(kind, value):
            return struct.pack("!HH", kind, len(value)) + value + bytes(-len(value) % 4)

        def message(body, more):
            return struct.pack("!HHI", 1, len(body) + more, COOKIE) + transaction + body

        transaction = os.urandom(12)
        body = attribute(0x0006, f"{self.fragment}:ours".encode()) + attribute(0x0025, b"")
        body += attribute(0x0024, struct.pack("!I", 1)) + attribute(0x802A, bytes(8))
        key = (password or self.password).encode()
        body += attribute(0x0008, hmac.digest(key, message(body, 24), "sha1"))
        body += attribute(0x8028, struct.pack("!I", zlib.crc32(message(body, 8)) ^ 0x5354554E))
        return message(body, 0)

    def joins(self):
        """Whether a request of its own is answered."""
        return self.answered(self.request(), lambda packet: packet[:2] == b"\x01\x01")

    def goes_on(self):
        """Whether a packet that only its address leads to the session is answered."""
        return self.answered(client_hello(), lambda packet: packet[:1] == b"\x16")

    def answered(self, packet, is_answer):
        for _ in range(5):
            self.socket.sendto(packet, self.port)
            try:
                while not is_answer(self.socket.recv(4096)):
                    pass
                return True
            except TimeoutError:
                pass
        return False


def udp():
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    opened.bind(("127.0.0.1", 0))
    opened.settimeout(1)
    return opened


def client_hello():
    suites = struct.pack("!HHH", 4, 0xC02B, 0xC02F)
    extensions = struct.pack("!HHHH", 10, 4, 2, 23) + struct.pack("!HHBB", 11, 2, 1, 0)
    extensions += struct.pack("!HHHHH", 13, 6, 4, 0x0403, 0x0401)
    extensions += struct.pack("!HHHHB", 14, 5, 2, 1, 0) + struct.pack("!HH", 23, 0) + struct.pack("!HHB", 0xFF01, 1, 0)
    body = b"\xfe\xfd" + os.urandom(32) + b"\0" + b"\0" + suites + b"\1\0"
    body += struct.pack("!H", len(extensions)) + extensions
    length = struct.pack("!I", len(body))[1:]
    handshake = b"\1" + length + bytes(2) + bytes(3) + length + body
    return b"\x16\xfe\xfd" + bytes(8) + struct.pack("!H", len(handshake)) + handshake


def descriptors(pid):
    """Copies of a process's sockets, as if they were used in it."""
    call = ctypes.CDLL(None, use_errno=True).syscall
    of = call(PIDFD_OPEN, pid, 0)
    for number in map(int, os.listdir(f"/proc/{pid}/fd")):
        if os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
            copy = call(PIDFD_GETFD, of, number, 0)
            if copy < 0:
                raise OSError(ctypes.get_errno(), f"copying descriptor {number} of {pid}")
            yield socket.socket(fileno=copy)


def to_viewer(address, payload):
    return b"\4" + socket.inet_aton(address[0]) + bytes(12) + struct.pack("!H", address[1]) + payload


def many_ports(password):
    """Its own fragment from many ports: each is one address more."""
    for _ in range(4200):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            one.sendto(hostile.request(password), hostile.port)


def has_the_port():
    for opened in descriptors(runner):
        if opened.family in (socket.AF_INET, socket.AF_INET6) and opened.type & 0xF == socket.SOCK_DGRAM:
            return f"the runner has the UDP socket {opened.getsockname()}"
    return None


def media_socket():
    kinds = socket.SOCK_SEQPACKET, socket.SOCK_DGRAM
    found = [one for one in descriptors(runner) if one.family == socket.AF_UNIX and one.type & 0xF in kinds]
    # The runner has it twice, to receive and to send.
    assert len({os.fstat(one.fileno()).st_ino for one in found}) == 1, found
    return found[0]


def sends_to(name, address, opened):
    opened.setblocking(True)
    sender = media_socket()
    sender.settimeout(1)
    sender.send(to_viewer(address, b""))
    sender.send(to_viewer(address, b"hostile"))
    # Its own viewer's comes after these.
    sender.send(to_viewer(hostile.socket.getsockname(), b"own"))
    while hostile.socket.recv(4096) != b"own":
        pass
    opened.settimeout(0.2)
    try:
        while True:
            if opened.recv(4096) == b"hostile":
                return f"{name} got it"
    except TimeoutError:
        return None


def to_a_path():
    """What the machine's log is, for one."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(f"{folder}/log")
        log.setblocking(False)
        sender = media_socket()
        sender.setblocking(True)
        for attempt in [lambda: sender.sendto(b"", f"{folder}/log"), lambda: sender.connect(f"{folder}/log")]:
            try:
                attempt()
            except OSError:
                pass
        try:
            connected = bool(sender.getpeername())
        except OSError:
            connected = False
        try:
            log.recv(64)
            return "it was told something"
        except BlockingIOError:
            return "it is connected to the runner" if connected else None


def flood():
    sender = media_socket()
    sender.setblocking(False)
    packet = to_viewer(hostile.socket.getsockname(), bytes(1200))
    for _ in range(200_000):
        try:
            sender.send(packet)
        except BlockingIOError:
            pass


def rubbish():
    sender = media_socket()
    sender.settimeout(1)
    for payload in [b"\0", bytes(18), bytes(4096), b"\4" + bytes(60000), os.urandom(2000)]:
        sender.send(payload)


def shut():
    for opened in descriptors(runner):
        if opened.type & 0xF in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def by_revoked_key(host, session, key, revoke):
    """The picture that a caller has when their key is taken away."""
    caller = Viewer(host, session, key=key)
    assert caller.joins(), "a caller's own request is not answered"
    subprocess.run(revoke, check=True, capture_output=True)
    time.sleep(1)
    caller.socket.setblocking(False)
    while True:
        try:
            caller.socket.recv(4096)
        except BlockingIOError:
            break
    caller.socket.settimeout(1)
    return "its picture goes on" if caller.joins() else None


plan = json.load(sys.stdin)
runner = plan["runner"]
person, hostile = (Viewer(plan["host"], **plan[name]) for name in ("person", "hostile"))
stranger = udp()
seen = {"a picture by a revoked key": by_revoked_key(plan["host"], **plan["caller"])}
person.offer()
hostile.offer()


def against_the_person(name, attack):
    """Whether the person's picture goes on after an attack by the other session."""
    for viewer in (person, hostile):
        viewer.offer()
        assert viewer.joins(), "a viewer's own request is not answered"
    assert person.goes_on(), "a viewer's picture does not begin"
    attack()
    person.offer()
    seen[name] = None if person.joins() and person.goes_on() else "the person's picture is gone"


def against_their_address(name, attack):
    """The same without joining anew: their address still leads to their session."""
    for viewer in (person, hostile):
        viewer.offer()
        assert viewer.joins(), "a viewer's own request is not answered"
    attack()
    seen[name] = None if person.goes_on() else "the person's address leads nowhere"


against_their_address("a viewer's fragment from 4,200 ports, unproven", lambda: many_ports("0" * 24))
against_their_address("a viewer's fragment from 4,200 ports, proven", lambda: many_ports(None))
seen["the port itself, by a runner"] = has_the_port()
for name, of in [("another session's viewer", person.socket), ("a stranger", stranger)]:
    hostile.offer()
    assert hostile.joins()
    seen[f"a packet to {name}, by a runner"] = sends_to(name, of.getsockname(), of)
against_their_address("a flood, by a runner", flood)
against_their_address("rubbish, by a runner", rubbish)
against_the_person("its sockets shut down, by a runner", shut)
seen["a socket that has a path, by a runner"] = to_a_path()
print(json.dumps(seen))
