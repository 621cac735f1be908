"""Draws the rows of the media benchmark."""

from pathlib import Path

from matplotlib.figure import Figure

from soak.measure import Row

_LOOKS = {
    ("usual", 20): ("the usual aiortc code, 20 ms", "tab:gray", "o"),
    ("usual", 60): ("the usual aiortc code, 60 ms wideband", "tab:brown", "o"),
    ("pion", 20): ("pion, 20 ms", "tab:blue", "s"),
    ("pion", 60): ("pion, 60 ms wideband", "tab:cyan", "s"),
    ("ours", 20): ("roomscribe, 20 ms", "tab:orange", "o"),
    ("ours", 60): ("roomscribe, 60 ms wideband", "tab:red", "o"),
}


def draw(rows: list[Row], floors: dict[int, float], machine: str, file: Path) -> None:
    """Cost of a speaker, and cores used, by how many speak; `floors` by the packets' ms."""
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    each, whole = figure.subplots(1, 2)
    for (server, packet_ms), (label, colour, marker) in _LOOKS.items():
        line = [
            (row.case.speakers, row.cpu_ms, row.core)
            for row in rows
            if (row.case.server, row.case.packet_ms) == (server, packet_ms)
            and row.case.vad == "energy"
            and row.case.talkers == 1.0
        ]
        if line:
            speakers, cpu_ms, cores = zip(*sorted(line), strict=True)
            each.plot(speakers, cpu_ms, marker=marker, color=colour, label=label)
            whole.plot(speakers, cores, marker=marker, color=colour, label=label)
    for packet_ms, floor in floors.items():
        colour = _LOOKS["ours", packet_ms][1]
        label = f"floor: SRTP and Opus alone, {packet_ms} ms"
        each.axhline(floor, color=colour, linestyle=":", label=label)
    each.set_ylabel("ms of CPU per second of audio and speaker")
    whole.set_ylabel("cores")
    for axes in (each, whole):
        axes.set_xlabel("speakers, all of them talking")
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.3)
    each.legend()
    figure.suptitle(f"What a speaker costs ({machine})", fontsize=9)
    figure.savefig(file, dpi=120)
