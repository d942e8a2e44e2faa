"""A process that holds a KVM VM and blocks every reader of its memory.

fuse_page.py DIR mounts a FUSE file system at DIR and maps a file of it. The file system answers everything but
reads. One thread reads the page through /proc/self/mem, which holds the process's mmap_lock for reading until
the page arrives; another waits to take the lock for writing, and every later reader waits behind it, for example
of /proc/PID/cmdline. Without DIR the process only holds the VM. It prints "ready"; kill it to end it.
"""

import ctypes
import fcntl
import os
import struct
import sys
import threading

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.mmap.restype = ctypes.c_void_p
LIBC.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]

# linux/fuse.h
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 15, 18, 26, 36, 42
ROOT, FILE = 1, 2
ENOSYS = 38


def attributes(node):
    mode = 0o40755 if node == ROOT else 0o100644
    times = [0] * 3
    return struct.pack("<6Q10I", node, 4096, 8, *times, *times, mode, 1, 0, 0, 0, 4096, 0)


def answer(opcode, node):
    """The body of an answer, None for no answer, or an error."""
    if opcode == INIT:
        return struct.pack("<4I2H2I2H8I", 7, 31, 4096, 0, 4, 4, 4096, 1, 1, 0, *[0] * 8)
    if opcode == LOOKUP:
        return struct.pack("<4Q2I", FILE, 1, 60, 60, 0, 0) + attributes(FILE)
    if opcode == GETATTR:
        return struct.pack("<Q2I", 60, 0, 0) + attributes(node)
    if opcode == OPEN:
        return struct.pack("<Q2I", 1, 0, 0)
    if opcode == RELEASE:
        return b""
    if opcode in (READ, FORGET, INTERRUPT, BATCH_FORGET):
        return None
    return ENOSYS


def serve(device, ask):
    """Answers on `device`, and writes to `ask` once the page is requested."""
    while True:
        try:
            request = os.read(device, 1 << 17)
        except OSError:
            return
        _, opcode, unique, node = struct.unpack_from("<2I2Q", request)
        if opcode == READ:
            os.write(ask, b"x")
        body = answer(opcode, node)
        if body is None:
            continue
        error, body = (-body, b"") if isinstance(body, int) else (0, body)
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


def check(result, what):
    if result < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


def hold_memory(directory):
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    check(LIBC.mount(b"page", directory.encode(), b"fuse", 0, options), "mount")
    # Served by a child process: while the connection is open, a thread that waits for a page cannot be killed
    # (fs/fuse/dev.c, request_wait_answer). The connection must not be open in the process that waits.
    asked, ask = os.pipe()
    if os.fork() == 0:
        LIBC.prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
        serve(device, ask)
        os._exit(0)
    os.close(device)
    file = os.open(f"{directory}/page", os.O_RDONLY)
    check(LIBC.umount2(directory.encode(), 2), "umount")
    page = LIBC.mmap(None, 4096, 1, 1, file, 0)  # PROT_READ, MAP_SHARED
    # Started before any thread waits: starting a thread takes the lock too.
    threading.Thread(target=want_to_write, args=[asked], daemon=True).start()
    memory = os.open("/proc/self/mem", os.O_RDONLY)
    threading.Thread(target=os.pread, args=[memory, 1, page], daemon=True).start()


def want_to_write(asked):
    os.read(asked, 1)
    print("ready", flush=True)
    LIBC.mmap(None, 4096, 1, 0x22, -1, 0)  # MAP_PRIVATE | MAP_ANONYMOUS


def main():
    LIBC.prctl(1, 9)  # PR_SET_PDEATHSIG, SIGKILL
    kvm = os.open("/dev/kvm", os.O_RDWR)
    vm = fcntl.ioctl(kvm, 0xAE01, 0)  # KVM_CREATE_VM
    fcntl.ioctl(vm, 0xAE41, 0)  # KVM_CREATE_VCPU
    # A VMM has more than one thread.
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    if len(sys.argv) > 1:
        hold_memory(sys.argv[1])
    else:
        print("ready", flush=True)
    threading.Event().wait()


main()
