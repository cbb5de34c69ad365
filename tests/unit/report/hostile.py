"""Texts that try to break out of a page or to steer a terminal, and a result that is full of them."""

import msgspec
import runs

from stoker.core.options import Setting
from stoker.core.plan import DatasetSpec, Job
from stoker.core.result import Reading, Result

CANARY = "stoker-canary-ran"
_RUN = f"document.title='{CANARY}'"
XSS = (
    f"<script>{_RUN}</script>",
    f"</script><script>{_RUN}</script>",
    f"</style><script>{_RUN}</script>",
    f"</title><script>{_RUN}</script>",
    f'"><img src=x onerror="{_RUN}">',
    f"'><svg onload={_RUN}>",
    f"<!--<script>{_RUN}",
    f"]]><script>{_RUN}</script>",
    f"{{{{ self.__init__ }}}}<iframe srcdoc='<script>parent.{_RUN}</script>'>",
    f"javascript:{_RUN}",
    "<base href=BEACON/><link rel=stylesheet href=BEACON/x.css><style>@import 'BEACON/y.css';</style>",
    "<img src=BEACON/x.png><iframe src=BEACON/></iframe><meta http-equiv=refresh content='0;url=BEACON/z'>",
    "\u2028</script>\x00\x1b[31m\x9b31m\u202eevil\x07",
)
ALL = " ".join(XSS)


def hostile_result(beacon: str = "http://beacon.invalid") -> Result:
    """A failed run in which every free text is hostile and tries to reach `beacon`."""
    text = msgspec.json.encode(_hostile_result()).decode().replace("BEACON", beacon)
    return msgspec.json.decode(text, type=Result)


def _hostile_result() -> Result:
    result = runs.realistic_result(with_histograms=False)
    result.id = result.reason = result.stoker_version = result.status = ALL
    result.started_utc = result.ended_utc = ALL
    result.notes = list(XSS)
    result.machine = {ALL: {text: [text, {"name": text}] for text in XSS}}
    result.job = Job(
        verb=ALL,
        arguments=XSS,
        settings={text: Setting(text, text) for text in XSS} | {"list": Setting(list(XSS), "flag")},
    )
    dataset = DatasetSpec(format=ALL, files=1, options={ALL: ALL})
    texts = {"model": ALL, "accelerator": ALL, "target_url": ALL, "order": ALL, "notes": XSS}
    result.plan = msgspec.structs.replace(result.plan, dataset=dataset, **texts)
    evidence = result.evidence
    evidence.io_mode_requested, evidence.io_mode = ALL, ALL + "x"
    evidence.target_kind = evidence.device = ALL
    evidence.notes = list(XSS)
    result.metrics.stall_seconds = dict.fromkeys(XSS, 1.0)
    result.metrics.limiting_stage = ALL
    result.histograms = dict.fromkeys(XSS, XSS[0]) | {ALL: runs.histograms(1, samples=50)["read"]}
    for rank in result.ranks:
        rank.host = rank.error = ALL
        rank.stall_seconds = {ALL: 2.0}
        rank.reading = Reading(engine=ALL, readers=-1, queue_depth=1 << 62, why=ALL, pinned=XSS, start={ALL: 1})
    for epoch in result.epochs:
        epoch.phase = epoch.order_digest = ALL
    return result
