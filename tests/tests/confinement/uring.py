"""Sockets that no socket call makes: everything here is asked of the kernel through io_uring.

usage: uring.py tcp|udp ADDRESS PORT
Prints one line: `answer TEXT`, `refused ERRNO-NAME STEP`, `no-ring ERRNO-NAME`, or `silence`.
"""

import ctypes
import errno
import mmap
import os
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
SETUP, ENTER = 425, 426
GET_EVENTS = 1
OP_CONNECT, OP_SEND, OP_RECV, OP_SOCKET, OP_LINK_TIMEOUT = 16, 26, 27, 45, 15
LINKED = 1 << 2
SQ_RING, CQ_RING, SQES = 0, 0x8000000, 0x10000000
ENTRIES = 8
MARKER = b"the agent's secret"


def call(number, *arguments):
    result = LIBC.syscall(ctypes.c_long(number), *[ctypes.c_long(it) for it in arguments])
    if result < 0:
        raise OSError(ctypes.get_errno(), "syscall")
    return result


class Ring:
    def __init__(self):
        params = ctypes.create_string_buffer(120)
        self.fd = call(SETUP, ENTRIES, ctypes.addressof(params))
        fields = struct.unpack("<10I", params.raw[:40])
        sq_entries, cq_entries = fields[0], fields[1]
        self.sq = struct.unpack("<8I", params.raw[40:72])
        self.cq = struct.unpack("<8I", params.raw[80:112])
        self.sq_ring = mmap.mmap(self.fd, self.sq[6] + sq_entries * 4, offset=SQ_RING)
        self.cq_ring = mmap.mmap(self.fd, self.cq[5] + cq_entries * 16, offset=CQ_RING)
        self.entries = mmap.mmap(self.fd, sq_entries * 64, offset=SQES)

    def submit(self, *requests):
        (tail,) = struct.unpack_from("<I", self.sq_ring, self.sq[1])
        (mask,) = struct.unpack_from("<I", self.sq_ring, self.sq[2])
        for index, request in enumerate(requests):
            slot = (tail + index) & mask
            self.entries[slot * 64 : slot * 64 + 64] = request
            struct.pack_into("<I", self.sq_ring, self.sq[6] + slot * 4, slot)
        struct.pack_into("<I", self.sq_ring, self.sq[1], tail + len(requests))
        call(ENTER, self.fd, len(requests), len(requests), GET_EVENTS, 0, 0)
        results = {}
        for _ in requests:
            (head,) = struct.unpack_from("<I", self.cq_ring, self.cq[0])
            (mask,) = struct.unpack_from("<I", self.cq_ring, self.cq[2])
            at = self.cq[5] + (head & mask) * 16
            name, result, _ = struct.unpack_from("<QiI", self.cq_ring, at)
            struct.pack_into("<I", self.cq_ring, self.cq[0], head + 1)
            results[name] = result
        return results[1]


def entry(code, fd, address=0, length=0, offset=0, flags=0, name=1):
    return struct.pack("<BBHiQQIIQ24x", code, flags, 0, fd, offset, address, length, 0, name)


def main():
    kind, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    try:
        ring = Ring()
    except OSError as error:
        print("no-ring", errno.errorcode[error.errno])
        return
    v6 = ":" in host
    family = socket.AF_INET6 if v6 else socket.AF_INET
    if v6:
        name = struct.pack("=HHI16sI", family, socket.htons(port), 0, socket.inet_pton(family, host), 0)
    else:
        name = struct.pack("=HH4s8x", family, socket.htons(port), socket.inet_pton(family, host))
    name = ctypes.create_string_buffer(name, len(name))
    transport = socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM
    patience = ctypes.create_string_buffer(struct.pack("<qq", 1, 0), 16)

    def limited(code, *arguments, **more):
        return ring.submit(
            entry(code, *arguments, flags=LINKED, **more),
            entry(OP_LINK_TIMEOUT, -1, address=ctypes.addressof(patience), length=1, name=2),
        )

    made = ring.submit(entry(OP_SOCKET, family, offset=transport))
    steps = [("socket", made)]
    if made >= 0:
        address = ctypes.addressof(name)
        steps.append(("connect", limited(OP_CONNECT, made, address=address, offset=len(name))))
    if steps[-1][1] >= 0:
        data = ctypes.create_string_buffer(MARKER, len(MARKER))
        steps.append(("send", ring.submit(entry(OP_SEND, made, ctypes.addressof(data), len(MARKER)))))
    if steps[-1][1] >= 0:
        answer = ctypes.create_string_buffer(256)
        length = limited(OP_RECV, made, ctypes.addressof(answer), 256)
        steps.append(("receive", length))
        if length > 0:
            print("answer", answer.raw[:length].decode("utf-8", "replace").strip())
            return
    step, result = steps[-1]
    if result == 0 or -result == errno.ECANCELED:
        print("silence")
    else:
        print("refused", errno.errorcode[-result], step)


main()
