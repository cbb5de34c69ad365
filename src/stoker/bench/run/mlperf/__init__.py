"""`stoker mlperf`: the command line of MLPerf Storage 3.0, so that its users' scripts run with another program's name.

rows, families   the options as data: which exists for which family, command, division and access
lookup           the rows of one command, with the limits that the rules put on them
resolving        what was typed, the environment and a file, as settings with origins
storing          where the data lie: a folder, or a bucket
dataset          how many files: as told, as sized, or as they lie there
words            a command as words of DLIO, each with its origin
foretold         what the rules can tell before a run
prepare          all of that as one structure: what runs, dry runs and configview stand on
results_dir      the results directory and where in it a leaf belongs
journal          what was run in it
engine, tee      our engine as a child process, or on many hosts, its output kept in the leaf
conducting       a run from its gates to its verdict
generating       the dataset made by the ranks of many hosts
sizing_leaf      datasize: its leaf, and what to type next
exits            the reference tool's exit codes
"""
