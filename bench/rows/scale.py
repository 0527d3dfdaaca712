"""What fires per second beside very many stored triggers, compared with few."""

from __future__ import annotations

from datetime import UTC, datetime
from statistics import median

from bench.due import Due, make_due, one_pattern
from bench.lab import Lab
from bench.load import same_sets, store
from bench.result import Context, Figure, Row
from bench.sides import Ours, fire
from lab.redis_servers import RedisServer

PLACES = 50


def run(context: Context) -> Row:
    """Two servers, with few and with many triggers; the same bursts on both, in turns."""
    few, many, due, rounds = (200, 2000, 100, 1) if context.small else (10_000, 1_000_000, 5000, 3)

    def plan(slot: int) -> list[Due]:
        return make_due([slot] * due, [one_pattern(slot)] * due, max(1, due // 100))

    # Half a year away.
    idle = f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"
    rates: dict[int, list[float]] = {few: [], many: []}
    once = {few: True, many: True}
    with Lab() as lab:
        servers: dict[int, RedisServer] = {}
        for stored in rates:
            servers[stored] = lab.redis()
            sets = same_sets(idle, "https://api.example.com/webhook", stored - due, 1000, "idle")
            store(servers[stored].url(), sets)
        for _ in range(rounds):
            for stored, server in servers.items():
                burst = fire(Ours(), plan, 3.0 if context.small else 6.0, redis=server, places=PLACES)
                rates[stored].append(burst.rate())
                once[stored] &= burst.once()
    figure = Figure(
        name=f"scale, {many:,} stored",
        unit="requests/s",
        ours=median(rates[many]),
        better="higher",
        peers={f"{few:,} stored": median(rates[few])},
        goal_ratio=0.9,
        goal_peer=f"{few:,} stored",
        once=once[many],
        peers_once={f"{few:,} stored": once[few]},
    )
    rounded = {str(stored): [round(rate) for rate in found] for stored, found in rates.items()}
    return Row([figure], {"due": due, "places": PLACES, "rounds": rounded})
