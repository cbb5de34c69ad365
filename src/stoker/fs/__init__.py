"""The distributed file system: names and files over engines that only store keys and values."""
