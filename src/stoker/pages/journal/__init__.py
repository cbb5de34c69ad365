"""The journal: the log's frames in segment files, recovered whatever happened to the last of them."""

from stoker.pages.journal.recover import Recovered, recover
from stoker.pages.journal.scan import JournalStats, is_of, journal_stats, scan, sources
from stoker.pages.journal.segments import Journal, JournalEnd

__all__ = ["Journal", "JournalEnd", "JournalStats", "Recovered", "is_of", "journal_stats", "recover", "scan", "sources"]
