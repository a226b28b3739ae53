from sae_toolkit.metrics.score import Score
from sae_toolkit.report.calibration_chart import calibration_panel


def score(value):
    return Score(value=value, n=10, id="x/v1")


def test_the_number_above_a_frame_is_that_of_the_saes_alone():
    values = {"a": (0.1, 0.2), "b": (0.5, 0.4), "c": (0.9, 0.8), "random": (1.0, 0.0)}
    found = {name: {"guess": score(g), "truth": score(t)} for name, (g, t) in values.items()}
    kinds = {name: "nobody trained it" if name == "random" else "SAE" for name in values}
    panel = calibration_panel(found, kinds, ("guess",), "truth")
    assert "rank correlation 1.00" in panel.svg
    assert "nobody trained it" in panel.svg
