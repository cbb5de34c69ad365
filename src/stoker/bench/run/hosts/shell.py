"""What is sent to a host that is sampled over SSH: a few lines for any POSIX shell, and nothing to be installed.

The shell waits for a line and answers with texts, so that who asks decides when; it ends when its input does, or when
nothing came for a while: a link that was cut leaves no process behind.
"""

from typing import Final

from stoker.bench.run.hosts.sources import DYNAMIC, OS_RELEASE, PRODUCT, STATIC, SYSCTLS, Texts

MARK: Final = "==stoker "
END: Final = "==stoker-end"
_PROBE: Final = "clock"
_SAMPLE: Final = "sample"
_SNAPSHOT: Final = "snapshot"
WORDS: Final = (_PROBE, _SAMPLE, _SNAPSHOT)

_PROGRAM: Final = """
export LC_ALL=C
show() {{ if [ -r "$2" ]; then echo "{mark}$1"; cat "$2"; echo; fi; }}
line() {{ if read -r w 2>/dev/null <"$1"; then printf '%s' "$w"; fi; }}
word() {{ w=$(line "$1"); printf '%s' "${{w:--}}"; }}
dynamic() {{ for n in {dynamic}; do show "$n" "/proc/$n"; done; }}
static() {{
  for n in {static}; do show "$n" "/proc/$n"; done
  for n in {sysctls}; do show "sys/$n" "/proc/sys/$n"; done
  for n in {releases}; do if [ -r "$n" ]; then show os-release "$n"; break; fi; done
  show product {product}
  echo "{mark}blocks"
  for d in /sys/class/block/*; do
    [ -e "$d" ] || continue
    w=-; if [ -e "$d/partition" ]; then w=$(cd -P "$d/.." && pwd); w=${{w##*/}}; fi
    s=; for b in "$d"/slaves/*; do [ -e "$b" ] && s="$s${{s:+,}}${{b##*/}}"; done
    echo "${{d##*/}} $w ${{s:--}}"
  done
  echo "{mark}links"
  for d in /sys/class/net/*; do
    [ -e "$d" ] || continue
    if [ -e "$d/device" ]; then echo "${{d##*/}} 1"; else echo "${{d##*/}} 0"; fi
  done
  echo "{mark}ports"
  for d in /sys/class/net/*; do
    [ -e "$d" ] || continue
    echo "${{d##*/}} $(word "$d/type") $(word "$d/operstate") $(word "$d/speed")"
  done
  echo "{mark}drives"
  for d in /sys/class/block/*; do
    [ -e "$d/device" ] && [ ! -e "$d/partition" ] || continue
    p=$(cd -P "$d/device" && pwd)
    printf '%s\t%s\t%s\t%s\t%s\t%s\n' "${{d##*/}}" "$(word "$d/size")" "$(word "$d/queue/rotational")" "$p" \
      "$(line "$d/device/vendor")" "$(line "$d/device/model")"
  done
  echo "{mark}hostname"; uname -n
  echo "{mark}arch"; uname -m
}}
next() {{
  if command -v timeout >/dev/null; then word=$(timeout {silence} sh -c "read -r w && echo \\$w"); else read -r word; fi
}}
echo "{mark}ready"; echo "{end}"
while next; do
  case $word in
    clock) echo "{mark}clock"; date +%s.%N; echo "{end}" ;;
    sample) dynamic; echo "{mark}clock"; date +%s.%N; echo "{end}" ;;
    snapshot) dynamic; static; echo "{mark}clock"; date +%s.%N; echo "{end}" ;;
    *) exit 0 ;;
  esac
done
"""


def program(silence_seconds: float) -> str:
    """Return the shell program; it ends by itself after so many seconds without a question."""
    return _PROGRAM.format(
        mark=MARK,
        end=END,
        dynamic=" ".join(DYNAMIC),
        static=" ".join(STATIC),
        sysctls=" ".join(SYSCTLS),
        releases=" ".join(OS_RELEASE),
        product=PRODUCT,
        silence=max(round(silence_seconds), 1),
    )


def parse_answer(text: str) -> Texts:
    """Return the texts of an answer by their names."""
    parts = text.split(MARK)[1:]
    named = (part.partition("\n") for part in parts)
    return {name: body.removesuffix("\n") for name, _, body in named}


def clock_ns(texts: Texts) -> tuple[int, int] | None:
    """Return the host's clock in nanoseconds and its resolution; a `date` without nanoseconds has whole seconds."""
    seconds, _, fraction = texts.get("clock", "").strip().partition(".")
    if not seconds.isdecimal():
        return None
    if len(fraction) == 9 and fraction.isdecimal():
        return int(seconds) * 1_000_000_000 + int(fraction), 1
    return int(seconds) * 1_000_000_000 + 500_000_000, 500_000_000
