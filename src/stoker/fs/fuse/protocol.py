"""The numbers and structs of the kernel's FUSE protocol, as `linux/fuse.h` has them, in this machine's byte order.

Major version 7; what is spoken is at most minor version 40, at least 31 (Linux 5.4). Names are those of the header.
"""

import struct
from typing import Final

MAJOR: Final = 7
MINOR: Final = 40
MINOR_MIN: Final = 31
ROOT_NODE: Final = 1
PAGE_BYTES: Final = 4096
PAGES_MAX: Final = 256
WRITE_BYTES_MAX: Final = PAGES_MAX * PAGE_BYTES
REQUEST_BYTES_MAX: Final = WRITE_BYTES_MAX + PAGE_BYTES
"""A request is a header and at most a page more than the bytes that are written."""

# -- opcodes

LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
SETATTR: Final = 4
READLINK: Final = 5
SYMLINK: Final = 6
MKNOD: Final = 8
MKDIR: Final = 9
UNLINK: Final = 10
RMDIR: Final = 11
RENAME: Final = 12
LINK: Final = 13
OPEN: Final = 14
READ: Final = 15
WRITE: Final = 16
STATFS: Final = 17
RELEASE: Final = 18
FSYNC: Final = 20
SETXATTR: Final = 21
GETXATTR: Final = 22
LISTXATTR: Final = 23
REMOVEXATTR: Final = 24
FLUSH: Final = 25
INIT: Final = 26
OPENDIR: Final = 27
READDIR: Final = 28
RELEASEDIR: Final = 29
FSYNCDIR: Final = 30
GETLK: Final = 31
SETLK: Final = 32
SETLKW: Final = 33
ACCESS: Final = 34
CREATE: Final = 35
INTERRUPT: Final = 36
DESTROY: Final = 38
BATCH_FORGET: Final = 42
FALLOCATE: Final = 43
READDIRPLUS: Final = 44
RENAME2: Final = 45
LSEEK: Final = 46
COPY_FILE_RANGE: Final = 47
STATX: Final = 52
COPY_FILE_RANGE_64: Final = 53

SILENT: Final = frozenset({FORGET, BATCH_FORGET, INTERRUPT})
"""What is never answered."""

# -- flags of INIT

ASYNC_READ: Final = 1 << 0
POSIX_LOCKS: Final = 1 << 1
ATOMIC_O_TRUNC: Final = 1 << 3
EXPORT_SUPPORT: Final = 1 << 4
BIG_WRITES: Final = 1 << 5
DONT_MASK: Final = 1 << 6
FLOCK_LOCKS: Final = 1 << 10
AUTO_INVAL_DATA: Final = 1 << 12
DO_READDIRPLUS: Final = 1 << 13
READDIRPLUS_AUTO: Final = 1 << 14
ASYNC_DIO: Final = 1 << 15
PARALLEL_DIROPS: Final = 1 << 18
POSIX_ACL: Final = 1 << 20
MAX_PAGES: Final = 1 << 22
CACHE_SYMLINKS: Final = 1 << 23
HANDLE_KILLPRIV_V2: Final = 1 << 28
INIT_EXT: Final = 1 << 30
DIRECT_IO_ALLOW_MMAP: Final = 1 << 36

WANTED: Final = (
    ASYNC_READ | POSIX_LOCKS | ATOMIC_O_TRUNC | EXPORT_SUPPORT | BIG_WRITES | DONT_MASK | FLOCK_LOCKS
    | AUTO_INVAL_DATA | DO_READDIRPLUS | READDIRPLUS_AUTO | ASYNC_DIO | PARALLEL_DIROPS | POSIX_ACL | MAX_PAGES
    | CACHE_SYMLINKS | HANDLE_KILLPRIV_V2 | INIT_EXT | DIRECT_IO_ALLOW_MMAP
)  # fmt: skip
"""What this server knows how to do, of what a kernel may offer."""

# -- flags of other requests and answers

FATTR_MODE: Final = 1 << 0
FATTR_UID: Final = 1 << 1
FATTR_GID: Final = 1 << 2
FATTR_SIZE: Final = 1 << 3
FATTR_ATIME: Final = 1 << 4
FATTR_MTIME: Final = 1 << 5
FATTR_FH: Final = 1 << 6
FATTR_ATIME_NOW: Final = 1 << 7
FATTR_MTIME_NOW: Final = 1 << 8

FOPEN_DIRECT_IO: Final = 1 << 0
FOPEN_KEEP_CACHE: Final = 1 << 1

RELEASE_FLOCK_UNLOCK: Final = 1 << 1
LK_FLOCK: Final = 1 << 0
WRITE_CACHE: Final = 1 << 0
FMODE_EXEC: Final = 0x20
"""In the flags of OPEN: the kernel opens the file to run it."""

NOTIFY_INVAL_INODE: Final = 2

# -- structs

IN_HEADER: Final = struct.Struct("=IIQQIIIHH")
OUT_HEADER: Final = struct.Struct("=IiQ")
ATTR: Final = struct.Struct("=QQQQQQIIIIIIIIII")
ENTRY_OUT: Final = struct.Struct("=QQQQII")
ATTR_OUT: Final = struct.Struct("=QII")
OPEN_OUT: Final = struct.Struct("=QII")
WRITE_OUT: Final = struct.Struct("=II")
XATTR_OUT: Final = struct.Struct("=II")
STATFS_OUT: Final = struct.Struct("=QQQQQIIII24x")
LOCK: Final = struct.Struct("=QQII")
LSEEK_OUT: Final = struct.Struct("=Q")
DIRENT: Final = struct.Struct("=QQII")
INIT_IN: Final = struct.Struct("=IIII")
INIT_FLAGS2: Final = struct.Struct("=I")
INIT_OUT: Final = struct.Struct("=IIIIHHIIHHI28x")
FORGET_ONE: Final = struct.Struct("=QQ")
INVAL_INODE: Final = struct.Struct("=Qqq")
STATX_OUT: Final = struct.Struct("=QII16x")
STATX_BODY: Final = struct.Struct("=IIQIIIH2xQQQQqI4xqI4xqI4xqI4xIIII112x")
