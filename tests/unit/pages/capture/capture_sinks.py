"""A sink in memory, for the tests of graphs."""


class MemorySink:
    def __init__(self) -> None:
        self.pages: dict[int, tuple[str, bytes, dict[str, str]]] = {}
        self.edges: list[tuple[int, int, int]] = []
        self.invalid: list[int] = []

    def put(self, name: str, data: bytes, meta: dict[str, str]) -> int:
        page = len(self.pages) + 1
        self.pages[page] = (name, data, meta)
        return page

    def link(self, parent: int, child: int, kind: int) -> None:
        self.edges.append((parent, child, kind))

    def invalidate(self, page: int) -> None:
        self.invalid.append(page)
