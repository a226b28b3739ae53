import pytest
import torch
from scipy.optimize import minimize

from sae_toolkit.ground_truth import (
    ToyData,
    ToyModels,
    ToyTrainConfig,
    best_of,
    best_pair,
    candidate_losses,
    closed_form_boundary,
    feature_variance,
    linear_model_loss,
    predict_phases,
    refined_boundary,
    train_exactly,
    trained_phases,
)
from sae_toolkit.ground_truth.superposition_theory import PHASES, refined_antipodal_losses

IGNORED, DEDICATED, SUPERPOSED = range(3)


def cell(p, r):
    return torch.tensor([p]), torch.tensor([r])


def test_variance_of_a_feature():
    x = ToyData.uniform([0.4], 1).sample(400_000, torch.Generator().manual_seed(0))[0, :, 0].double()
    assert float(feature_variance(torch.tensor([0.4]))) == pytest.approx(float(x.var()), rel=0.01)


def test_linear_model_ignores_the_least_important():
    # V(1) = 1/12; the two smallest of (1, .5, .25, .125) are ignored
    found = linear_model_loss(torch.tensor([0.25, 1.0, 0.125, 0.5]), torch.ones(1), 2)
    assert float(found) == pytest.approx(0.375 / 12)


def test_candidate_losses_by_hand():
    losses = candidate_losses(*cell(0.5, 2.0))
    # V(.5) = 1/6 - 1/16 = 5/48
    assert {name: float(value) for name, value in losses.items()} == pytest.approx(
        {"extra_ignored": 10 / 48, "other_ignored": 5 / 48, "extra_antipodal": 0.25 * 3 / 6}
    )
    assert float(candidate_losses(*cell(0.5, 2.0), n_features=3)["others_antipodal"]) == pytest.approx(0.25 / 3)


@pytest.mark.parametrize(("r", "boundary"), [(0.1, 0.16), (0.3, 1.2 / 3.5), (1.0, 4 / 7), (3.0, 4 / 11)])
def test_candidates_meet_at_the_boundary(r, boundary):
    p = closed_form_boundary(torch.tensor([r]))
    assert float(p) == pytest.approx(boundary)
    losses = candidate_losses(p, torch.tensor([r]))
    single = min(float(losses["extra_ignored"]), float(losses["other_ignored"]))
    assert float(losses["extra_antipodal"]) == pytest.approx(single)


def test_three_features_superpose_the_extra_one_only_if_it_matters_less():
    found = closed_form_boundary(torch.tensor([0.3, 3.0]), n_features=3)
    assert found.tolist() == pytest.approx([1.2 / 3.5, 0.0])


@pytest.mark.parametrize(
    ("n_features", "p", "r", "phase"),
    [
        (2, 0.9, 0.1, IGNORED),
        (2, 0.9, 5.0, DEDICATED),
        (2, 0.05, 0.5, SUPERPOSED),
        (2, 0.05, 5.0, SUPERPOSED),
        (3, 0.05, 0.5, SUPERPOSED),
        (3, 0.05, 5.0, DEDICATED),
        (3, 1.0, 5.0, DEDICATED),
    ],
)
def test_phases_far_from_any_boundary(n_features, p, r, phase):
    found = predict_phases(*cell(p, r), n_features=n_features)
    assert PHASES[int(found.phase)] == PHASES[phase]
    assert float(found.margin) > 0.25


def test_margin_is_the_ratio_of_the_best_two():
    # p = .5, r = 2: other_ignored 5/48, extra_antipodal 6/48, extra_ignored 10/48
    found = predict_phases(*cell(0.5, 2.0))
    assert float(found.margin) == pytest.approx(6 / 5 - 1)
    assert float(found.loss) == pytest.approx(5 / 48)


def test_margin_vanishes_at_the_boundary():
    r = torch.tensor([0.3])
    assert float(predict_phases(closed_form_boundary(r), r).margin) == pytest.approx(0, abs=1e-6)


def test_phases_of_given_weights():
    W = torch.tensor([[[1.0, 0.0], [0.0, 0.1]], [[1.0, 0.0], [0.0, 1.0]], [[1.0, -1.0], [0.0, 0.1]]])
    assert trained_phases(W).tolist() == [IGNORED, DEDICATED, SUPERPOSED]


def test_refined_boundaries_are_those_of_an_independent_quadrature():
    found = refined_boundary([0.1, 0.3, 3.0])
    torch.testing.assert_close(found, torch.tensor([0.181, 0.376, 0.398]).double(), atol=0.01, rtol=0)


def test_refinement_moves_the_boundary_up():
    r = [0.2, 0.5, 2.0]
    assert (refined_boundary(r) > closed_form_boundary(torch.tensor(r))).all()


def test_no_sharp_boundary_at_equal_importance():
    assert refined_boundary([1.0]).isnan().all()


def test_refined_antipodal_loss_is_not_above_the_closed_form():
    p, r = torch.tensor([0.05, 0.2, 0.5]), torch.tensor([1.0, 0.5, 1.0])
    assert (refined_antipodal_losses(p, r) <= candidate_losses(p, r)["extra_antipodal"] * (1 + 1e-3)).all()


@pytest.mark.parametrize(("n_features", "least"), [(2, 0.95), (3, 0.9)])
def test_trained_models_agree_away_from_boundaries(n_features, least):
    p, r = (
        grid.flatten() for grid in torch.meshgrid(torch.logspace(-2, 0, 6), torch.logspace(-1, 1, 6), indexing="ij")
    )
    importance = torch.ones(36, n_features)
    importance[:, -1] = r
    config = ToyModels.Config(n_features=n_features, n_hidden=n_features - 1, n_instances=36 * 12)
    data = ToyData(probabilities=p[:, None].repeat(1, n_features))
    train = ToyTrainConfig(n_steps=500, learning_rate=2e-2)
    best = best_of(train_exactly(config, data, importance, train=train, n_nodes=5), 12)
    predicted = predict_phases(p, r, n_features=n_features)
    clear = predicted.margin > 0.25
    assert int(clear.sum()) > 25
    assert float((trained_phases(best.models.W) == predicted.phase)[clear].float().mean()) >= least


@pytest.mark.usefixtures("as_users_call")
def test_other_sizes_raise():
    with pytest.raises(ValueError, match="n_features=4"):
        candidate_losses(*cell(0.1, 1.0), n_features=4)


def test_the_best_pair_is_the_best_symmetric_digon():
    """Against scipy on W = (a, -a) and one bias, with midpoint sums in place of quadrature."""
    p, places = 0.3, (torch.arange(200, dtype=torch.float64) + 0.5) / 200

    def loss(solution):
        squared, bias = solution
        own = lambda x, other: (x - (squared * (x - other) + bias).relu()).square().mean()  # noqa: E731
        none, zero = torch.zeros(1, dtype=torch.float64), torch.zeros(200, dtype=torch.float64)
        alone, both = own(places, zero), own(places[:, None], places[None, :])
        silent = p * own(zero, places) + (1 - p) * own(none, none)
        return float(p * ((1 - p) * alone + p * both) + (1 - p) * silent)

    best = minimize(loss, [1.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-5, "fatol": 1e-10})
    W = best_pair([p]).W.detach()[0, 0]
    assert float(W.square().sum()) == pytest.approx(2 * best.x[0], rel=2e-3)
    assert float(W[0] * W[1]) == pytest.approx(-best.x[0], rel=2e-3)
