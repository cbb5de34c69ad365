"""The words that the kernel for pages of Parquet columns and its plain twin share: the columns of a job.

A job is a column chunk: where it lies in the data, what it must hold, and where its values go in the output. Widths and
places are in bytes. The two widths differ only where Parquet stores 8 or 16 bits in 4 bytes.
"""

from typing import Final

JOB_AT: Final = 0
JOB_BYTES: Final = 1
JOB_VALUES: Final = 2
JOB_WIDTH: Final = 3
JOB_OUT_WIDTH: Final = 4
"""The lower bytes of a value that are wanted."""
JOB_LIST_SIZE: Final = 5
"""Values of each list; 0 where values are not in lists."""
JOB_LEVELS: Final = 6
"""The definition level that every value must have, for none to be null; 0 where there are no levels."""
JOB_OUT_AT: Final = 7
JOB_COLUMNS: Final = 8

LEVELS_MAX: Final = 127
NARROWED_WIDTH: Final = 4
"""The width of what is stored in more bytes than it has, and what it has."""
NARROW_WIDTH_MAX: Final = 2
INDEX_BITS_MAX: Final = 32
"""How many bits an index into a dictionary may have."""
