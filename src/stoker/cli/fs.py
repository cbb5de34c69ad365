"""`stoker fs`."""

import click

from stoker.cli.fs_care import disks, drain, explain, maintenance, rebalance, repair, what_if
from stoker.cli.fs_change import ln, mkdir, mv, rm, xattr
from stoker.cli.fs_chunkserver import chunkserver
from stoker.cli.fs_class import storage_class
from stoker.cli.fs_data import cat, gc, get, put
from stoker.cli.fs_demo import demo
from stoker.cli.fs_fsck import fsck
from stoker.cli.fs_look import info, ls, stat
from stoker.cli.fs_master import master, status
from stoker.cli.fs_metalogger import metalogger, restore
from stoker.cli.fs_mount import mount, umount
from stoker.cli.fs_promote import promote
from stoker.cli.fs_volume import format_volume
from stoker.cli.groups import OrderedGroup


@click.group("fs", cls=OrderedGroup)
def command() -> None:
    """Make volumes of the file system, mount them, look at them, and copy files into them and out of them.

    VOLUME is a URL: sqlite:///path.db, lmdb:///folder or master://host:port,host:port/NAME. Paths begin at the
    volume's root.
    """


for _leaf in (
    format_volume,
    info,
    ls,
    stat,
    put,
    get,
    cat,
    mkdir,
    mv,
    ln,
    rm,
    xattr,
    storage_class,
    gc,
    fsck,
    mount,
    umount,
    promote,
    master,
    status,
    chunkserver,
    disks,
    drain,
    maintenance,
    repair,
    rebalance,
    explain,
    what_if,
    metalogger,
    restore,
    demo,
):
    command.add_command(_leaf)
