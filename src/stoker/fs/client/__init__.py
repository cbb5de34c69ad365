"""Files over metadata and a store of slices: what a mount, fsspec and the `stoker://` store stand on."""

from stoker.fs.client.client import Client
from stoker.fs.client.filetree import FileTree, TreeFile
from stoker.fs.client.openfile import OpenFile
from stoker.fs.client.options import ClientOptions

__all__ = ["Client", "ClientOptions", "FileTree", "OpenFile", "TreeFile"]
