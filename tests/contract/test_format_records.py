"""tfrecord, raw, the indexed binaries and synthetic keep the contract."""

from stoker.testing.format_contract import FormatContract, Written


class TestTfRecord(FormatContract):
    name = "tfrecord"
    variants = ({}, {"verify": False})


class TestTfRecordWithoutIndex(FormatContract):
    name = "tfrecord"

    def write(self, *arguments, **options):
        file = super().write(*arguments, **options)
        return Written(file.spec, file.data, {})


class TestRaw(FormatContract):
    name = "raw"


class TestIndexedBinary(FormatContract):
    name = "indexed_binary"


class TestIndexedBinaryWithoutCompanions(FormatContract):
    name = "indexed_binary"

    def write(self, *arguments, **options):
        file = super().write(*arguments, **options)
        return Written(file.spec, file.data, {})


class TestMmapIndexedBinary(FormatContract):
    name = "mmap_indexed_binary"


class TestSynthetic(FormatContract):
    name = "synthetic"
    stores_content = False
    variants = ({}, {"number": 7})
