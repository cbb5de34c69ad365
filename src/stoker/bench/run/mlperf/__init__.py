"""The command tree of MLPerf Storage: its results directory, the journal of its runs, and what is done with both."""
