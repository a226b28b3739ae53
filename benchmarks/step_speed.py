"""Seconds, tokens/s and peak memory of one training step: every variant, against peers, a textbook loop and the floor.

A step is forward, loss, backward, clipping, optimizer, decoder constraint and dead counters, without data loading. Each
contestant lives in a process of its own; round after round each takes its turn, so that a noisy machine is noisy for
all of them, and ratios are medians of ratios within rounds. Run it alone on the machine:

    python3 -m venv peers && peers/bin/pip install torch==2.13.0 sae-lens dictionary-learning eai-sparsify
    .venv/bin/python benchmarks/step_speed.py --peers peers/bin/python --sizes medium large --out step_speed.json

(pip may bring a torchvision that does not fit a CPU build of torch; nothing here needs it: uninstall it.) On one GPU:

    .venv/bin/python benchmarks/step_speed.py --peers peers/bin/python --sizes large --device cuda --peak-tflops 989
"""

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from step_worker import Task

from sae_toolkit.saes import AbstractSAE

HERE = Path(__file__).parent

SIZES: dict[str, dict[str, int]] = {
    "small": {"d_in": 64, "d_sae": 512, "batch": 4096, "k": 8},
    "medium": {"d_in": 768, "d_sae": 6144, "batch": 2048, "k": 32},
    "large": {"d_in": 768, "d_sae": 24576, "batch": 2048, "k": 32},
}
TENTH_DEAD, PLAIN_TOPK = "ours, a tenth dead", "ours, plain TopK"
BY_RANK = ["floor", "floor, bf16", "ours", "ours, bf16 ranking", TENTH_DEAD, PLAIN_TOPK, "textbook"]
BY_PENALTY = ["floor", "ours", "ours, half active", "textbook"]
PEERS = ["SAELens", "SAELens, sparse", "SAELens, bf16", "dictionary_learning", "sparsify"]


@dataclass
class Contestant:
    """A worker process and what it measured."""

    task: Task
    process: subprocess.Popen[str]
    version: str = ""
    seconds: list[float] = field(default_factory=list)
    peak_mb: float = 0.0

    @property
    def who(self) -> str:
        return self.task.who

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.who} ended without an answer; see its messages above.")
        return dict(json.loads(answer))

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def started(task: Task, peers: Path | None) -> Contestant | None:
    """The contestant, ready to take its turns; None where it has no such variant."""
    ours = task.who.split(",")[0] in ("ours", "textbook", "floor")
    command = [sys.executable, str(HERE / "step_ours.py")] if ours else [str(peers), str(HERE / "step_peers.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    contestant = Contestant(task, process)
    answer = contestant.ask(json.dumps(asdict(task)))
    contestant.version = answer["version"]
    if answer["missing"] is None:
        return contestant
    print(f"{task.who} {contestant.version} does not take part in {task.variant}: {answer['missing']}", flush=True)
    contestant.end()
    return None


def contestants_of(variant: str, options: argparse.Namespace) -> list[str]:
    """Who takes part."""
    by_penalty = AbstractSAE.variants[variant].has_sparsity_penalty
    names = (BY_PENALTY if by_penalty else BY_RANK) + (PEERS if options.peers else [])
    return [who for who in names if not options.only or who in options.only]


def contest(variant: str, size: str, options: argparse.Namespace) -> list[Contestant]:
    """All contestants of one variant at one size, measured in turns."""
    contestants = []
    for who in contestants_of(variant, options):
        task = Task(
            who=who,
            variant="TopKSAE" if who == PLAIN_TOPK else variant,
            **SIZES[size],
            threads=options.threads,
            device=options.device,
            dead_share=0.1 if who == TENTH_DEAD else options.dead,
            steps=options.steps,
            clock=options.clock,
        )
        contestant = started(task, options.peers)
        if contestant is not None:
            contestants.append(contestant)
    for _ in range(options.rounds):
        for contestant in contestants:
            answer = contestant.ask("round")
            contestant.seconds.append(answer["seconds"])
            contestant.peak_mb = answer["peak_mb"]
    for contestant in contestants:
        contestant.end()
    return contestants


def floor_flop(task: Task) -> int:
    """Multiplications and additions of the dense products that the floor counts: those of every latent, or one."""
    products = task.n_products if AbstractSAE.variants[task.variant].has_sparsity_penalty else 1
    return products * 2 * task.batch * task.d_in * task.d_sae


def rows_of(variant: str, size: str, contestants: list[Contestant], peak_tflops: float | None) -> list[dict[str, Any]]:
    """One row per contestant, with its time relative to ours and to the floor, round by round."""
    by_name = {contestant.who: contestant for contestant in contestants}

    def ratio(a: str, b: str) -> float | None:
        if a not in by_name or b not in by_name:
            return None
        return statistics.median(x / y for x, y in zip(by_name[a].seconds, by_name[b].seconds, strict=True))

    rows = []
    for contestant in contestants:
        seconds = statistics.median(contestant.seconds)
        rows.append(
            {
                "variant": variant,
                "size": size,
                "who": contestant.who,
                "version": contestant.version,
                "seconds": seconds,
                "tokens_per_s": SIZES[size]["batch"] / seconds,
                "times_ours": ratio(contestant.who, "ours"),
                "times_ours_bf16": ratio(contestant.who, "ours, bf16 ranking"),
                "share_of_floor": ratio("floor", contestant.who),
                "peak_mb": contestant.peak_mb,
                "share_of_peak": None
                if peak_tflops is None
                else floor_flop(contestant.task) / seconds / (peak_tflops * 1e12),
                "rounds": contestant.seconds,
            }
        )
    return rows


def shown(rows: list[dict[str, Any]]) -> str:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    titles = f"{'ms':>9} {'tokens/s':>10} {'x ours':>7} {'x bf16':>7} {'of floor':>8} {'peak MB':>8}  version"
    lines = [f"{'who':<24} {titles}"]
    for row in rows:
        extra = "" if row["share_of_peak"] is None else f"  {row['share_of_peak']:.1%} of the peak"
        lines.append(
            f"{row['who']:<24} {row['seconds'] * 1e3:>9.1f} {row['tokens_per_s']:>10,.0f} "
            f"{number(row['times_ours'], '.2f'):>7} {number(row['times_ours_bf16'], '.2f'):>7} "
            f"{number(row['share_of_floor'], '.2f'):>8} {row['peak_mb']:>8,.0f}  {row['version']}{extra}"
        )
    return "\n".join(lines)


def without_gpu(options: argparse.Namespace) -> str:
    """What would be run if there were a GPU."""
    lines = ["No CUDA device here, so nothing was measured. On one this would run, in turns:"]
    for size in options.sizes:
        for variant in options.variants or sorted(AbstractSAE.variants):
            names = ", ".join(contestants_of(variant, options))
            lines.append(f"{variant}, {size} {SIZES[size]}, {options.rounds} rounds of {options.steps} steps: {names}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, help="the Python of an environment with the peers in it")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["medium"])
    parser.add_argument("--variants", nargs="+", choices=sorted(AbstractSAE.variants), help="default: all")
    parser.add_argument("--only", nargs="+", choices=sorted({*BY_RANK, *BY_PENALTY, *PEERS}), help="who takes part")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3, help="steps per round, of which the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="cpu: for a look on a busy machine")
    parser.add_argument("--dead", type=float, default=0.0, help="share of latents that count as dead: AuxK has work")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak-tflops", type=float, help="of the GPU in bf16; adds the share of it that is used")
    parser.add_argument("--out", type=Path, help="all rows with every round, as JSON")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(without_gpu(options))
        return
    everything = []
    for size in options.sizes:
        for variant in options.variants or sorted(AbstractSAE.variants):
            rows = rows_of(variant, size, contest(variant, size, options), options.peak_tflops)
            everything += rows
            print(f"\n{variant}, {size} {SIZES[size]}, {options.dead:.0%} dead\n{shown(rows)}", flush=True)
            if options.out:
                options.out.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
