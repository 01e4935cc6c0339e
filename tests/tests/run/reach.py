"""Tries, from under the gate, to reach what the gate keeps from its command.

Prints a line for each attempt: its name, a tab, and `ok` or the name of the error. The test that
runs this knows what each must be. Arguments: the folder of the gate's files, and the pid of the
gate as seen from outside.
"""

import ctypes
import errno
import os
import platform
import signal
import socket
import subprocess
import sys

FOLDER, GATE = sys.argv[1], int(sys.argv[2])
TOKEN, JOURNAL, POLICY = (
    os.path.join(FOLDER, name) for name in ("token", "journal.jsonl", "policy.yaml")
)
LIBC = ctypes.CDLL(None, use_errno=True)


def attempt(name, act):
    try:
        act()
        outcome = "ok"
    except OSError as error:
        outcome = errno.errorcode.get(error.errno, str(error.errno))
    except subprocess.CalledProcessError as error:
        outcome = f"status {error.returncode}"
    except Exception as error:  # noqa: BLE001 - the name of any other failure is the outcome
        outcome = type(error).__name__
    print(f"{name}\t{outcome}", flush=True)


def syscall(number, *arguments):
    if LIBC.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "syscall")


def shell(script):
    def act():
        subprocess.run(
            ["sh", "-c", script], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    return act


def opened(path, flags):
    return lambda: os.close(os.open(path, flags))


def replaced(path):
    def act():
        other = path + ".mine"
        with open(other, "w") as file:
            file.write("mine")
        try:
            os.rename(other, path)
        finally:
            if os.path.exists(other):
                os.unlink(other)

    return act


for name, path in (("token", TOKEN), ("journal", JOURNAL), ("policy", POLICY)):
    attempt(f"{name} read", opened(path, os.O_RDONLY))
    attempt(f"{name} write", opened(path, os.O_WRONLY))
    attempt(f"{name} append", opened(path, os.O_WRONLY | os.O_APPEND))
    attempt(f"{name} truncate", lambda: os.truncate(path, 0))
    attempt(f"{name} chmod", lambda: os.chmod(path, 0o666))
    attempt(f"{name} remove", lambda: os.unlink(path))
    attempt(f"{name} rename", lambda: os.rename(path, path + ".away"))
    attempt(f"{name} replace", replaced(path))
    attempt(f"{name} link", lambda: os.link(path, path + ".link"))
    attempt(
        f"{name} through a link",
        lambda: (
            os.symlink(path, path + ".symlink"),
            opened(path + ".symlink", os.O_RDWR)(),
        ),
    )
    for there in ("/proc/1/root", "/proc/self/root", "/proc/thread-self/cwd/../../../../.."):
        attempt(f"{name} by {there}", opened(there + path, os.O_RDWR))
    nested = "unshare -Urm sh -ec '%s'"
    attempt(f"{name} unmounted", shell(nested % f"umount {path}"))
    attempt(f"{name} unmounted lazily", shell(nested % f"umount -l {path}"))
    attempt(f"{name} remounted", shell(nested % f"mount -o remount,bind,rw {path}"))
    attempt(
        f"{name} folder mounted elsewhere",
        shell(nested % f"mkdir -p {FOLDER}/there; mount --bind {FOLDER} {FOLDER}/there"),
    )
    attempt(
        f"{name} in a folder mounted elsewhere",
        shell(
            nested
            % (
                f"mkdir -p {FOLDER}/there; mount --rbind {FOLDER} {FOLDER}/there;"
                f"echo x >> {FOLDER}/there/{os.path.basename(path)}"
            )
        ),
    )
    attempt(f"{name} below its folder", shell(nested % f"umount {FOLDER}; echo x >> {path}"))

attempt("folder rename", lambda: os.rename(FOLDER, FOLDER + ".away"))
ABOVE = os.path.dirname(FOLDER)
attempt("folder above rename", lambda: os.rename(ABOVE, ABOVE + ".away"))
attempt("folder write", replaced(os.path.join(FOLDER, "other")))

attempt("gate signal", lambda: os.kill(GATE, signal.SIGSTOP))
attempt("gate memory", opened(f"/proc/{GATE}/mem", os.O_RDONLY))
attempt("init signal", lambda: os.kill(1, signal.SIGKILL) or os.kill(1, signal.SIGSTOP))
attempt("init descriptors", lambda: os.readlink("/proc/1/fd/0"))
attempt("init memory", opened("/proc/1/mem", os.O_RDWR))
attempt("init environment", opened("/proc/1/environ", os.O_RDONLY))
PTRACE_ATTACH = 16
attempt(
    "init trace",
    lambda: LIBC.ptrace(PTRACE_ATTACH, 1, 0, 0) < 0
    and (_ for _ in ()).throw(OSError(ctypes.get_errno(), "ptrace")),
)
attempt("processes outside", lambda: sum(1 for it in os.listdir("/proc") if it.isdigit()) > 6 and 1 / 0)

attempt("unix socket", lambda: socket.socket(socket.AF_UNIX))
attempt("unix pair", lambda: socket.socketpair())
attempt("unix datagram pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM))
attempt("unix raw pair", lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_RAW))
attempt(
    "unix datagram pair with flags",
    lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK),
)
attempt("vsock", lambda: socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))
attempt("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
attempt("bluetooth", lambda: socket.socket(31, socket.SOCK_RAW))
attempt("qipcrtr", lambda: socket.socket(42, socket.SOCK_DGRAM))
attempt("raw ip", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("netlink route", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0))
attempt("netlink netfilter", lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12))
attempt("interfaces", lambda: socket.if_nameindex())

CALLS = {
    "x86_64": {
        "socket": 41, "io_uring_setup": 425, "add_key": 248, "keyctl": 250, "bpf": 321,
        "open_by_handle_at": 304, "perf_event_open": 298,
    },
    "aarch64": {
        "socket": 198, "io_uring_setup": 425, "add_key": 217, "keyctl": 219, "bpf": 280,
        "open_by_handle_at": 265, "perf_event_open": 241,
    },
}[platform.machine()]
for name in ("io_uring_setup", "add_key", "keyctl", "bpf", "open_by_handle_at", "perf_event_open"):
    attempt(name, lambda: syscall(CALLS[name], 0, 0, 0, 0, 0))
# The same kernel may take calls numbered for the x32 ABI.
attempt("x32 socket", lambda: syscall(CALLS["socket"] + 0x40000000, socket.AF_UNIX, 1, 0))

import fcntl  # noqa: E402 - only now, for the terminal

attempt("type into the terminal", lambda: fcntl.ioctl(0, 0x5412, b"x"))
attempt("type with high bits set", lambda: LIBC.ioctl(0, ctypes.c_ulong(0x1_0000_5412), b"x") < 0
        and (_ for _ in ()).throw(OSError(ctypes.get_errno(), "ioctl")))

attempt("kernel setting", opened("/proc/sys/kernel/core_pattern", os.O_WRONLY))
attempt("sysrq", opened("/proc/sysrq-trigger", os.O_WRONLY))
attempt("cron", opened("/etc/crontab.mine", os.O_WRONLY | os.O_CREAT))
attempt("program of the system", opened("/usr/bin/env", os.O_WRONLY))
attempt(
    "control group",
    lambda: [os.mkdir(os.path.join("/sys/fs/cgroup", it, "mine"))
             for it in [""] + os.listdir("/sys/fs/cgroup")][:0] or 0,
)
attempt("block devices", lambda: [
    (_ for _ in ()).throw(RuntimeError(entry.path))
    for entry in os.scandir("/dev") if (entry.stat().st_mode & 0o170000) == 0o060000
    and os.access(entry.path, os.R_OK)
])
attempt("become root", shell("test \"$(id -u)\" != 0; su -c true </dev/null"))
