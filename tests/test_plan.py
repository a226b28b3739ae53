"""What a run is predicted to take: sizes by hand, refusals before anything is allocated, peaks against real runs."""

import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest
import torch

from sae_toolkit import AbstractSAE, BatchTopKSAE, ReluSAE, TopKSAE, TrainConfig, train
from sae_toolkit.activations import ActivationSource, ArraySource
from sae_toolkit.activations.memory import MemoryPart, WeighsBeforeLoading
from sae_toolkit.activations.shuffle import GroupReader, GroupRows, ShuffledStream, WindowExtent
from sae_toolkit.plan import Plan, WillNotFitError, memory, plan_run
from sae_toolkit.plan.plan import Row, as_bytes, as_time
from sae_toolkit.plan.predict import heavy_configs, sites_of
from sae_toolkit.plan.probe import RepeatedBatches
from sae_toolkit.plan.sizes import TYPICAL_L0, sizes_of
from sae_toolkit.recipe import Recipe
from sae_toolkit.run_folder import RunFolder

LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the resident size")
GIB = 2**30


class Rows(ArraySource):
    """Random rows of width 8 that say what they hold."""

    parts: tuple[MemoryPart, ...] = ()
    places: Mapping[str, int] = {"activations": 8}

    def __init__(self) -> None:
        super().__init__(torch.randn(400, 8, generator=torch.Generator().manual_seed(0)))

    @property
    def sites(self) -> Mapping[str, int]:
        return self.places

    def memory_bytes(self) -> tuple[MemoryPart, ...]:
        return self.parts


@dataclass(frozen=True, kw_only=True)
class Heavy(WeighsBeforeLoading):
    n_bytes: int = 0

    def weight_bytes(self) -> int:
        return self.n_bytes


@dataclass(frozen=True, kw_only=True)
class Config:
    d_sae: int = 16
    d_in: int = 8
    model: Heavy = Heavy()
    train: TrainConfig = TrainConfig(n_samples=1000, batch_size=50, preparation_samples=100)


def recipe_of(
    make_source: Callable[[], ActivationSource], make_saes: Callable[[Config], dict[str, AbstractSAE]] | None = None
) -> Recipe:
    module = ModuleType("recipe under test")
    vars(module)["make_source"] = lambda config, run: make_source()
    vars(module)["make_saes"] = lambda config, source: (make_saes or one_topk)(config)
    return Recipe("test", Path("test.py"), module)


def one_topk(config: Config) -> dict[str, AbstractSAE]:
    return {"TopK": TopKSAE(TopKSAE.Config(d_in=config.d_in, d_sae=config.d_sae, k=2))}


def resident_growth(call: Callable[[], Any]) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_sizes_are_those_worked_out_by_hand() -> None:
    size = sizes_of(lambda: one_topk(Config()))["TopK"]
    # W_enc and W_dec of 8 * 16, b_enc of 16, b_dec of 8: 280 numbers; gradients as many, Adam's moments twice as many
    assert (size.n_parameters, size.gradients, size.moments) == (280, 1120, 2240)


@pytest.mark.parametrize("variant", sorted(AbstractSAE.variants))
def test_weights_include_buffers(variant: str) -> None:
    cls = AbstractSAE.variants[variant]
    wanted = {"d_in": 4, "d_sae": 8, "k": 2, "wanted_l0": 2.0, "d_out": 3, "site_widths": (1, 3)}
    values = {name: value for name, value in wanted.items() if name in cls.Config.__dataclass_fields__}
    real = cls(cls.Config(**values))
    stored = sum(tensor.numel() * tensor.element_size() for tensor in real.state_dict().values())
    assert sizes_of(lambda: {"x": cls(cls.Config(**values))})["x"].weights == stored


def test_ten_million_latents_are_counted_without_memory_for_them() -> None:
    found = []
    grown = resident_growth(lambda: found.append(sizes_of(lambda: one_topk(Config(d_in=4096, d_sae=10_000_000)))))
    assert found[0]["TopK"].n_parameters == 2 * 4096 * 10_000_000 + 10_000_000 + 4096
    assert grown < GIB


@pytest.mark.parametrize("device", ["cuda", torch.device("cuda", 0)])
def test_the_device_asked_for_is_known_where_there_is_none(device: Any) -> None:
    sizes = sizes_of(lambda: {"x": TopKSAE(TopKSAE.Config(d_in=2, d_sae=4, k=1)).to(device)})
    assert sizes["x"].device == "cuda"


def test_a_penalised_sae_is_taken_to_be_as_sparse_as_the_others() -> None:
    def make() -> dict[str, AbstractSAE]:
        return {"ReLU": ReluSAE(ReluSAE.Config(d_in=2, d_sae=64)), **one_topk(Config(d_sae=64))}

    assert sizes_of(make)["ReLU"].k == 2
    assert sizes_of(lambda: {"ReLU": ReluSAE(ReluSAE.Config(d_in=2, d_sae=64))})["ReLU"].k == TYPICAL_L0


def test_saes_computed_from_values_are_refused() -> None:
    def make() -> dict[str, AbstractSAE]:
        sae = TopKSAE(TopKSAE.Config(d_in=2, d_sae=4, k=1))
        return {"x": sae} if float(sae.W_dec.sum()) > 0 else {"y": sae}

    with pytest.raises(ValueError, match="make_saes computes with their values"):
        sizes_of(make)


def test_a_model_too_large_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    def make_source() -> ActivationSource:
        raise AssertionError("the model was loaded")

    config = Config(model=Heavy(n_bytes=10**18))
    with pytest.raises(WillNotFitError, match="model weights \\(1000000 TB\\): choose a smaller model"):
        plan_run(recipe_of(make_source), config, tmp_path)


def test_every_heavy_config_is_found_however_deep() -> None:
    @dataclass(frozen=True)
    class Outer:
        inner: Config
        other: Heavy

    found = list(heavy_configs(Outer(Config(model=Heavy(n_bytes=3)), Heavy(n_bytes=4))))
    assert [heavy.weight_bytes() for heavy in found] == [3, 4]


def test_saes_too_large_are_refused_before_they_are_built(tmp_path: Path) -> None:
    def plan() -> None:
        with pytest.raises(WillNotFitError, match="optimizer moments of 1 SAE \\(655 GB\\): lower d_sae"):
            plan_run(recipe_of(Rows), Config(d_in=4096, d_sae=10_000_000), tmp_path)

    # 8 bytes of moments for each of 2 * 4096 * 10^7 weights and 10^7 + 4096 biases
    assert resident_growth(plan) < GIB


def test_a_shuffle_buffer_too_large_is_refused_by_name(tmp_path: Path) -> None:
    class Buffered(Rows):
        parts = (MemoryPart("shuffle buffer", 10**15, held=False),)

    with pytest.raises(WillNotFitError, match="shuffle buffer \\(1000 TB\\): lower the source's shuffle_buffer"):
        plan_run(recipe_of(Buffered), Config(), tmp_path)


def test_what_fills_later_is_added_to_the_peak_and_what_is_held_is_not(tmp_path: Path) -> None:
    class Buffered(Rows):
        parts = (MemoryPart("text", 10**9, held=True), MemoryPart("shuffle buffer", 10**9, held=False))

    plan = plan_run(recipe_of(Buffered), Config(), tmp_path)
    # the calibration's stream has a buffer of its own, filled with no more than 100 samples of 4 * 8 + 32 bytes
    before = plan_run(recipe_of(Rows), Config(), tmp_path).peaks["cpu"]
    assert plan.peaks["cpu"] - before == pytest.approx(10**9 + 6400, abs=5e7)
    assert {"text", "shuffle buffer"} <= {row.what for row in plan.rows}


def test_the_checkpoint_is_as_large_as_a_real_one(tmp_path: Path) -> None:
    config = Config()
    plan = plan_run(recipe_of(Rows), config, tmp_path)
    run = RunFolder(tmp_path / "run")
    train(one_topk(config), Rows(), config.train, **run.training())
    files = [*run.sae_path("TopK").parents[1].rglob("*.safetensors")]
    headers = [8 + int.from_bytes(path.read_bytes()[:8], "little") for path in files]
    assert len(files) == 2
    assert sum(path.stat().st_size for path in files) - sum(headers) == plan.checkpoint


def test_planning_leaves_no_trace_in_the_sources_stream(tmp_path: Path) -> None:
    source = Rows()
    plan_run(recipe_of(lambda: source), Config(), tmp_path)
    first, fresh = (next(each.stream(4, seed=0, split="train")) for each in (source, Rows()))
    assert torch.equal(first.activations, fresh.activations)


def test_saes_of_several_sites_read_the_columns_they_are_named_after(tmp_path: Path) -> None:
    class Sites(Rows):
        places = MappingProxyType({"left": 3, "right": 5})

    def make(config: Config) -> dict[str, AbstractSAE]:
        return {name: BatchTopKSAE(BatchTopKSAE.Config(d_in=d, d_sae=9, k=1)) for name, d in Sites.places.items()}

    plan = plan_run(recipe_of(Sites, make), Config(), tmp_path)
    # 2 * 9 * (3 + 5) weights, 2 * 9 + 3 + 5 biases
    assert any("weights of 2 SAEs, 170 parameters" in row.what for row in plan.rows)
    with pytest.raises(ValueError, match="names an SAE 'TopK'"):
        sites_of(sizes_of(lambda: one_topk(Config())), Sites())


class Groups(ActivationSource, GroupReader):
    """Groups of 3, 0, 2 samples; a stream of it must not be opened to plan."""

    d_in = 8  # type: ignore[assignment]
    max_group_samples = 3  # type: ignore[assignment]

    def __init__(self) -> None:
        self.read: list[int] = []

    def extent(self, split: Any, start: int) -> WindowExtent:
        return WindowExtent(3, None, 9)

    def read_group_rows(self, split: Any, start: int, group: int) -> GroupRows:
        self.read.append(group)
        ids = torch.arange(3)
        rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(group))
        return GroupRows(rows, ids, ids, ids, {"position": ids >= (3, 0, 2)[group]})

    def stream(self, batch_size: int, *, seed: int, split: Any) -> ShuffledStream:
        raise AssertionError("the shuffle buffer was filled")

    def describe(self) -> dict[str, Any]:
        return {"name": "Groups"}


def test_a_source_of_groups_is_planned_without_filling_its_buffer(tmp_path: Path) -> None:
    source = Groups()
    plan = plan_run(recipe_of(lambda: source), Config(), tmp_path)
    assert source.read[:6] == [0, 1, 2, 0, 1, 2]
    # 8 numbers of 4 bytes, three labels of 8 and a byte of reasons
    assert plan.cache_per_sample == 57


def test_a_source_that_keeps_nothing_is_refused(tmp_path: Path) -> None:
    class Nothing(Groups):
        def read_group_rows(self, split: Any, start: int, group: int) -> GroupRows:
            return super().read_group_rows(split, start, 1)

    with pytest.raises(ValueError, match="the train split gave no sample"):
        plan_run(recipe_of(Nothing), Config(), tmp_path)


def test_repeated_rows_go_round() -> None:
    rows = torch.arange(3.0)[:, None].expand(3, 8)
    stream = RepeatedBatches(Rows(), rows).stream(2, seed=0, split="train")
    assert [next(stream).activations[:, 0].tolist() for _ in range(3)] == [[0, 1], [2, 0], [1, 2]]


PLAN = Plan(
    recipe="r",
    train=TrainConfig(n_samples=1000, batch_size=300),
    rows=(Row("process", 5 * 10**9), Row("weights", 3 * 10**9, "SAEs"), Row("temporaries", 10**9, "step")),
    peaks={"cpu": 9 * 10**9},
    available={"cpu": 10**10},
    checkpoint=10**9,
    cache_per_sample=None,
    free_disk=4 * 10**9,
    seconds=7200.0,
    seconds_per_step=0.25,
    seconds_per_batch_read=0.5,
)


def test_what_fits_is_not_refused() -> None:
    assert PLAN.refusal() is None


def test_a_peak_above_what_is_available_names_the_largest_part_that_can_shrink() -> None:
    refusal = replace(PLAN, available={"cpu": 8 * 10**9}).refusal()
    assert refusal == (
        "plan: r will not fit: about 9.00 GB of memory are needed, and 8.00 GB are available. The largest part is "
        "weights (3.00 GB): lower d_sae, or train fewer SAEs at a time."
    )


def test_checkpoints_that_do_not_fit_on_the_disk_are_refused() -> None:
    refusal = replace(PLAN, free_disk=2 * 10**9).refusal()
    assert refusal is not None
    assert "its checkpoints take 3.00 GB of disk, and 2.00 GB are free" in refusal


def test_the_table_says_steps_and_time() -> None:
    text = "\n".join(PLAN.lines())
    assert "4 of 300 samples" in text  # 1000 / 300, rounded up
    assert "250 ms of training + 500 ms of reading" in text
    assert "2.0 hours" in text


@pytest.mark.parametrize(
    ("n", "text"), [(999, "999 bytes"), (1500, "1.50 kB"), (12_345_678, "12.3 MB"), (5 * 10**11, "500 GB")]
)
def test_bytes_are_readable(n: int, text: str) -> None:
    assert as_bytes(n) == text


@pytest.mark.parametrize(("seconds", "text"), [(3.25, "3.2 seconds"), (600.0, "10.0 minutes"), (1e6, "11.6 days")])
def test_times_are_readable(seconds: float, text: str) -> None:
    assert as_time(seconds) == text


@LINUX
def test_the_peak_is_that_since_the_last_reset() -> None:
    def use(mebibytes: int) -> int:
        memory.reset_peaks()
        before = memory.resident_bytes()
        torch.ones(mebibytes * 2**18).sum()
        return memory.peak_bytes() - before

    large, small = use(256), use(64)
    if small > 128 * 2**20:
        pytest.skip("this system does not let a process reset its peak")
    assert large == pytest.approx(256 * 2**20, rel=0.1)
    assert small == pytest.approx(64 * 2**20, rel=0.2)


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("_dot_", ".")).write_text(text)


def test_the_limit_of_a_container_counts(tmp_path: Path) -> None:
    write(tmp_path, membership="0::/a/b\n")
    write(tmp_path / "a", memory_dot_max="1000", memory_dot_current="700", memory_dot_stat="anon 9\ninactive_file 50")
    write(tmp_path / "a/b", memory_dot_max="max", memory_dot_current="600", memory_dot_stat="inactive_file 1")
    assert memory.container_room(tmp_path / "membership", tmp_path) == [1000 - 700 + 50]


def test_the_limit_of_an_older_container_counts(tmp_path: Path) -> None:
    write(tmp_path, membership="3:cpu,cpuacct:/x\n2:memory:/x\n")
    statistics = {"memory_dot_stat": "total_inactive_file 5", "memory_dot_usage_in_bytes": "100"}
    write(tmp_path / "memory/x", memory_dot_limit_in_bytes="300", **statistics)
    write(tmp_path / "memory", memory_dot_limit_in_bytes="1000", **statistics)
    assert memory.container_room(tmp_path / "membership", tmp_path) == [300 - 100 + 5, 1000 - 100 + 5]


@LINUX
@pytest.mark.slow
def test_the_predicted_peak_is_that_of_the_run_within_15_percent(tmp_path: Path) -> None:
    recipe = ["toy_correlated", "--k", "6", "--train.n_samples", "60000", "--eval_samples", "2000"]
    plan = subprocess.run(command("plan", *recipe), check=True, capture_output=True, text=True)
    predicted = next(line for line in plan.stdout.splitlines() if "predicted peak" in line).split()[-2:]
    assert predicted[1] == "MB"
    run = subprocess.run(command("run", *recipe, "--output", str(tmp_path)), check=True, capture_output=True, text=True)
    measured = int(run.stdout.splitlines()[-1])
    assert float(predicted[0]) * 10**6 == pytest.approx(measured, rel=0.15)


def command(*arguments: str) -> list[str]:
    # Not getrusage: its maximum counts the process that started this one, too.
    code = (
        "import sys; from sae_toolkit.cli import main; from sae_toolkit.plan.memory import peak_bytes; "
        "status = main(sys.argv[1:]); print(peak_bytes()); sys.exit(status)"
    )
    return [sys.executable, "-c", code, *arguments]
