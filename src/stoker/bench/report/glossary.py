"""The words of a report with their formulas: (word, meaning, formula)."""

from typing import Final

GLOSSARY: Final = (
    (
        "accelerator utilisation (AU)",
        "Share of the time in which the emulated accelerators computed.",
        "Σ compute ÷ (end of the last kept step − start of the first)",
    ),
    (
        "95 % interval",
        "Where AU would fall in 95 of 100 such runs; by block bootstrap, since neighbouring steps resemble each other.",
        "resampled blocks of steps",
    ),
    (
        "AU, compatible",
        "The same as DLIO and MLPerf Storage compute it.",
        "100 × Σ compute ÷ (block wall time − excluded steps), step-weighted",
    ),
    (
        "samples/s, compatible",
        "DLIO's throughput, which counts two steps less than were made.",
        "(n − 2) × batch size ÷ the same time, summed over ranks",
    ),
    ("step", "Ask for a batch, get it, compute, pass the barrier.", "end − request"),
    ("wait", "The time from asking for a batch to having it.", "ready − request"),
    (
        "stall",
        "Wait of the accelerators, divided over the stages that were at work meanwhile.",
        "Σ over stages = Σ wait",
    ),
    ("limiting stage", "The stage with the most stall.", "max of stall by stage"),
    (
        "from the cache",
        "Requested bytes that this host's page cache held before they were read.",
        "cachestat(2) or mincore(2) before each read",
    ),
    (
        "agreement",
        "Claimed bytes held against the witness's count; above 1 % no yes is given.",
        "|from the store − counted| ÷ requested",
    ),
    ("client CPU", "CPU time of all ranks over what the host could give.", "Σ CPU time ÷ (wall time × usable CPUs)"),
    (
        "latency percentile",
        "The time within which that share of a stage's operations ended; from HdrHistograms, exact to 0.1 %.",
        "merged over ranks",
    ),
)
