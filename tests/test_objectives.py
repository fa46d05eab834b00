"""Classification by other objectives: closed forms against sums, surrogates against metrics, the attack, bad input."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from replications import catalogue, running
from replications.datasets.arrays import open_set
from replications.datasets.images.idx import read_idx
from replications.datasets.prepare import prepare
from replications.errors import UserError
from replications.layers.objectives.attack import attacked, log_odds
from replications.layers.objectives.forgetting import forgotten
from replications.papers.smooth_metrics.model import build as build_smooth
from replications.papers.smooth_metrics.model import soft_accuracy, soft_f1
from replications.papers.vib.model import build, build_plain, kl_to_standard_normal
from replications.tasks.classification_objectives.data import deal
from replications.tasks.classification_objectives.metrics import batch_bias, best_threshold
from replications.tasks.classification_objectives.metrics import soft_f1 as soft_f1_of_all

CPU = torch.device("cpu")
SMALL = {"widths": [8], "code": 3}


def double(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bottleneck(beta=0.1, **changes):
    torch.manual_seed(0)
    return build(4, 6, **SMALL | {"beta": beta} | changes).double()


def test_the_rate_is_the_mean_log_ratio_of_the_densities():
    mean, std = double(1, 3), double(1, 3, seed=1).exp()
    posterior, prior = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    z = mean + std * double(400_000, 3, seed=2)
    ratio = (posterior.log_prob(z) - prior.log_prob(z)).sum(-1)
    error = ratio.std() / math.sqrt(len(z))
    assert kl_to_standard_normal(mean, std).item() == pytest.approx(ratio.mean().item(), abs=4 * error.item())
    assert error < 0.01 * ratio.mean()


def test_the_loss_is_equation_17():
    module, x, label = bottleneck(beta=0.7, training_samples=5), double(9, 6), torch.arange(9) % 4
    torch.manual_seed(3)
    found = module({"x": x, "label": label})
    torch.manual_seed(3)
    mean, rho = module.encoder(x).detach().numpy().reshape(9, 2, 3).transpose(1, 0, 2)
    std = np.log1p(np.exp(rho - 5))
    z = mean + std * torch.randn(5, 9, 3, dtype=torch.float64).numpy()
    logits = z @ module.decoder.weight.detach().numpy().T + module.decoder.bias.detach().numpy()
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.mean([[logs[s, n, label[n]] for n in range(9)] for s in range(5)])
    rate = np.mean([(m**2 + s**2 - 1).sum() / 2 - np.log(s).sum() for m, s in zip(mean, std, strict=True)])
    assert found["loss"].item() == pytest.approx(expected + 0.7 * rate, rel=1e-12)


def test_probabilities_are_a_mean_over_draws_and_sum_to_one():
    module, x = bottleneck(), double(5, 6)
    torch.manual_seed(1)
    found = module.probabilities(x, 7)
    torch.manual_seed(1)
    each = module.classify(module.draw_code(x, 7)).float().softmax(-1)
    assert each.std(0).max() > 1e-4
    torch.testing.assert_close(found, each.mean(0))
    torch.testing.assert_close(found.sum(1), torch.ones(5))


def test_baselines_are_the_same_network_with_a_fixed_code():
    torch.manual_seed(0)
    plain = build_plain(4, 6, **SMALL, dropout=0.5).eval()
    x = double(5, 6).float()
    assert torch.equal(plain.probabilities(x, 1), plain.probabilities(x, 9)) and plain.information(x) is None
    assert not torch.equal(plain.train().probabilities(x, 1), plain.probabilities(x, 1))


def test_the_gradient_of_soft_f1_against_finite_differences():
    logits, label = double(12, seed=4).requires_grad_(), torch.arange(12) % 3 == 0
    assert torch.autograd.gradcheck(lambda a: soft_f1(a.sigmoid(), label), logits)
    p, t = logits.sigmoid().detach().numpy(), label.numpy()
    assert soft_f1(logits.sigmoid(), label).item() == pytest.approx(
        2 * sum(a * b for a, b in zip(p, t, strict=True)) / sum(a + b for a, b in zip(p, t, strict=True))
    )
    assert soft_f1_of_all(p, t) == pytest.approx(100 * soft_f1(logits.sigmoid(), label).item())


def test_with_certain_probabilities_the_surrogates_are_the_metrics():
    rng = np.random.default_rng(0)
    told, label = rng.integers(0, 2, 200), rng.integers(0, 2, 200)
    p = (100.0 * torch.from_numpy(2 * told - 1).double()).sigmoid()
    assert soft_f1(p, torch.from_numpy(label)).item() == pytest.approx(f1_score(label, told), abs=1e-12)
    both = torch.stack([1 - p, p], 1)
    assert soft_accuracy(both, torch.from_numpy(label)).item() == pytest.approx((told == label).mean(), abs=1e-12)


def test_a_batch_without_the_rare_class_gives_zero_and_no_gradient():
    p = torch.full((4,), 0.3, requires_grad=True)
    value = soft_f1(p, torch.zeros(4, dtype=torch.int64))
    value.backward()
    assert value.item() == 0 and torch.equal(p.grad, torch.zeros(4))
    assert soft_f1(torch.zeros(4), torch.zeros(4)).item() == 0
    for objective in ("cross_entropy", "weighted", "soft_f1", "soft_accuracy"):
        module = build_smooth(2, 6, [0.9, 0.1], widths=[4], objective=objective)
        assert torch.isfinite(module({"x": double(4, 6).float(), "label": torch.zeros(4, dtype=torch.int64)})["loss"])


def test_weighted_cross_entropy_weighs_classes_alike():
    module = build_smooth(2, 6, [0.75, 0.25], widths=[4], objective="weighted")
    x, label = double(8, 6).float(), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    logs = module.classify(module.draw_code(x, 1)[0]).log_softmax(1)
    expected = -(logs[:6, 0].mean() + logs[6:, 1].mean()) / 2
    assert module({"x": x, "label": label})["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_objective_changes_after_the_warm_share_of_the_steps():
    module = build_smooth(2, 6, [0.5, 0.5], widths=[4], objective="soft_f1", warm=0.5)
    batch = {"x": double(8, 6).float(), "label": torch.arange(8) % 2}
    losses = []
    for step in (0, 4, 5, 9):
        module.on_step(step, 10)
        losses.append(module(batch)["loss"].item())
    assert losses[0] == losses[1] > 0 > losses[2] == losses[3]


def test_the_bias_of_batches_is_zero_for_one_batch_and_for_equal_ones():
    p, t = np.tile([0.9, 0.2, 0.4, 0.1], 8), np.tile([True, False, False, False], 8)
    assert batch_bias(p, t, 32) == 0 and batch_bias(p, t, 4) == pytest.approx(0, abs=1e-12)
    grouped = np.argsort(~t, kind="stable")  # rare ones in the first batch of eight, none in the others
    assert batch_bias(p[grouped], t[grouped], 8) == pytest.approx(
        100 * (2 * 8 * 0.9 / (8 + 8 * 1.6) - 2 * 8 * 0.9 / (8 + 8 * 0.9) / 4)
    )


def test_the_threshold_is_the_best_of_all():
    rng = np.random.default_rng(1)
    p, t = rng.random(60).round(1), rng.random(60) < 0.3
    scores = {a: f1_score(t, p >= a) for a in np.unique(p)}
    assert best_threshold(p, t) == max(a for a in scores if scores[a] > max(scores.values()) - 1e-12)


def test_the_attack_stays_in_its_ball_and_lowers_the_mean_probability():
    module, label = bottleneck().float(), torch.arange(32) % 4
    x = double(32, 6).float().clamp(-1, 1)
    torch.manual_seed(0)
    hidden = attacked(module, x, label, 0.3, 5, 16)
    assert (hidden - x).abs().max() <= 0.3 + 1e-6 and hidden.abs().max() <= 1
    before, after = (module.probabilities(a, 500).gather(1, label[:, None]).mean() for a in (x, hidden))
    assert after < before - 0.002
    assert torch.equal(attacked(module, x, label, 0.0, 1, 2), x)


def test_a_saturated_network_does_not_hide_its_gradient():
    module = build_plain(4, 6, **SMALL)
    with torch.no_grad():
        module.decoder.weight.mul_(1e4)
    x = double(16, 6).float().clamp(-0.5, 0.5)
    label = module.probabilities(x, 1).argmax(1)
    moved = x.clone().requires_grad_()
    logs = module.log_probabilities(moved, 1)
    cross_entropy = torch.autograd.grad(-logs.gather(1, label[:, None]).sum(), moved, retain_graph=True)[0]
    assert (cross_entropy == 0).all(1).any(), "plain FGSM would not move some of them"
    assert (torch.autograd.grad(log_odds(logs, label).sum(), moved)[0] != 0).any(1).all()


def test_the_log_odds_are_those_of_the_probability():
    logs = double(6, 4).log_softmax(1)
    p = logs.exp()[torch.arange(6), torch.arange(6) % 4]
    torch.testing.assert_close(log_odds(logs, torch.arange(6) % 4), p.log() - (1 - p).log())


def test_a_code_of_noise_has_forgotten_all_and_one_of_the_input_nothing():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 2000)
    x = rng.standard_normal((2000, 5)) + label[:, None]
    assert forgotten(rng.standard_normal((2000, 4)), x, label) == pytest.approx(100, abs=1.5)
    assert forgotten(x @ np.linalg.qr(rng.standard_normal((5, 5)))[0], x, label) < 1
    assert forgotten(x[:, :2], x, label) == pytest.approx(60, abs=2)


def test_samples_are_dealt_by_the_seed_without_overlap():
    one, same, other = (deal(100, 30, 20, seed, "x") for seed in (0, 0, 1))
    assert np.bincount(one).tolist() == [30, 20, 50] and (one == same).all() and (one != other).any()


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for key in ("digits_8", "rare_vectors"):
        prepare(key, root)
    return root


@pytest.mark.parametrize(
    ("address", "changes", "message"),
    [
        ("vib/vib_1e2", ["task.samples=0"], "samples: Input should be greater than 0"),
        ("vib/vib_1e2", ["task.attack.eps=-0.1"], "attack.eps: Input should be greater than or equal to 0"),
        ("vib/vib_1e2", ["task.deal.train=1750"], "1750 and 100 of 1797 samples of 'digits_8' leave no test set"),
        ("vib/vib_1e2", ["task.deal.train=3", "recipe.batch_size=3"], "no sample of class '.' in its train split"),
        ("vib/vib_1e2", ["task.rare_class=10"], "rare_class': data set 'digits_8' has classes 0 to 9"),
        ("smooth_metrics/soft_f1", ["task.deal.validation=2"], "no sample of class 'rare' in its validation split"),
        ("smooth_metrics/soft_f1", ["options.objective=soft_f2"], "'soft_f2' is none of cross_entropy, weighted"),
        (
            "smooth_metrics/soft_f1",
            ["task.rare_class=null", "data.samples=digits_8", "task.deal.train=600", "task.deal.validation=200"],
            "not of 10 classes",
        ),
    ],
)
def test_bad_input_is_one_line(data_root, address, changes, message):
    with pytest.raises(UserError, match=message) as caught:
        running.make_workload(catalogue.resolve(address, "smoke", 0, changes), data_root, CPU)
    assert "\n" not in str(caught.value)


def test_no_draw_of_the_code_is_refused():
    with pytest.raises(UserError, match="at least 1 sample of the code, not 0"):
        bottleneck().probabilities(double(2, 6), 0)


@pytest.mark.parametrize("data", [b"no gzip", b"\x1f\x8b"])
def test_a_damaged_idx_file_is_named(tmp_path, data):
    (tmp_path / "images.gz").write_bytes(data)
    with pytest.raises(UserError, match=r"images\.gz is not"):
        read_idx(tmp_path / "images.gz")


def test_the_rare_class_has_its_share_and_its_chances(data_root):
    arrays = open_set("rare_vectors", data_root).arrays
    chance, label = np.asarray(arrays["chance"], np.float64), np.asarray(arrays["label"])
    assert chance.mean() == pytest.approx(0.043, abs=1e-6)
    groups = np.array_split(np.argsort(chance), 8)
    for rows in groups:  # labels are drawn by the chances
        spread = math.sqrt((chance[rows] * (1 - chance[rows])).sum()) / len(rows)
        assert label[rows].mean() == pytest.approx(chance[rows].mean(), abs=4 * spread + 1e-9)


def test_the_best_f1_of_the_rare_class_is_what_the_page_says(data_root):
    """By the known chances: of all sets of predicted samples the best has the highest chances."""
    chance = np.sort(open_set("rare_vectors", data_root).arrays["chance"].astype(np.float64))[::-1]
    expected = 2 * chance.cumsum() / (np.arange(1, len(chance) + 1) + chance.sum())
    assert 100 * expected.max() == pytest.approx(61.6, abs=0.05)
    assert 100 * expected[(chance > 0.5).sum() - 1] == pytest.approx(57.1, abs=0.05)
