"""What the server should say of generated people: grouped by Fairlearn, counted by scikit-learn, krippendorff, numpy.

Each judgement stands in both of its orders, (preference, 1) and (1 - preference, 0), so that an undecided one is
right in one of them and wrong in the other: the half that the server counts.
"""

from collections import Counter

import krippendorff
import numpy as np
import pandas as pd
from fairlearn.metrics import MetricFrame, mean_prediction
from sklearn.metrics import accuracy_score, log_loss

FLOOR = 5
FINE_BINS, COARSE_BINS, ENOUGH_FOR_FINE = 10, 5, 500


def both_orders(rows, column):
    """(outcomes, preferences, the rows they came from)."""
    preferences = rows[column].to_numpy(float)
    outcomes = np.concatenate([np.ones(len(rows)), np.zeros(len(rows))])
    return outcomes, np.concatenate([preferences, 1.0 - preferences]), pd.concat([rows, rows], ignore_index=True)


def accuracy(outcomes, preferences):
    return accuracy_score(outcomes, preferences > 0.5)


def loss(outcomes, preferences):
    return log_loss(outcomes, preferences, labels=[0, 1])


def calibration_error(outcomes, preferences):
    """Over equal bins, closed on the right: ten where there are enough predictions, else five."""
    bins = FINE_BINS if len(outcomes) // 2 >= ENOUGH_FOR_FINE else COARSE_BINS
    at = np.clip(np.ceil(preferences * bins), 1, bins).astype(int) - 1
    gaps = np.bincount(at, weights=preferences - outcomes, minlength=bins)
    return np.abs(gaps).sum() / len(outcomes)


def by_group(rows, column, group_by, metrics):
    outcomes, preferences, twice = both_orders(rows, column)
    return MetricFrame(metrics=metrics, y_true=outcomes, y_pred=preferences, sensitive_features=twice[group_by])


def shown(rows, group_by):
    """The rows of groups with enough people, and how many groups have too few."""
    people = rows.groupby(group_by)["user_id"].nunique()
    few = set(people[people < FLOOR].index)
    keys = [key if len(group_by) > 1 else key[0] for key in rows[group_by].itertuples(index=False, name=None)]
    return rows[[key not in few for key in keys]], len(few)


def figures(rows):
    """The figures of one group but for `user_accuracy`, as `/accuracy` names them."""
    everybody = rows.assign(everybody="all")
    metrics = {"accuracy": accuracy, "log_loss": loss, "ece": calibration_error}
    found = by_group(everybody, "preference", ["everybody"], metrics).overall.to_dict()
    population = by_group(everybody, "population", ["everybody"], {"accuracy": accuracy}).overall["accuracy"]
    told = rows[rows["baseline"].notna()].assign(everybody="all")
    baseline = by_group(told, "baseline", ["everybody"], {"accuracy": accuracy}).overall["accuracy"]
    return {
        **found,
        "users": rows["user_id"].nunique(),
        "n": len(rows),
        "population_accuracy": population,
        "gain": found["accuracy"] - population,
        "bt_accuracy": baseline,
    }


def user_accuracy(rows):
    """The mean over people of Fairlearn's accuracy of each."""
    return by_group(rows, "preference", ["user_id"], {"accuracy": accuracy}).by_group["accuracy"].mean()


def key_of(values):
    """A group's values as a tuple, whether there is one attribute or more."""
    return values if isinstance(values, tuple) else (values,)


def accuracies(rows, group_by):
    """Fairlearn's frame of accuracy by group."""
    return by_group(rows, "preference", group_by, {"accuracy": accuracy})


def votes(rows, group_by):
    """(pair, group, person, side) of everybody who judged a pair that more than one person judged."""
    sides = {}
    for row in rows[rows["pair"].notna()].to_dict("records"):
        person = (row["pair"], tuple(row[key] for key in group_by), row["user_id"])
        sides[person] = sides.get(person, 0) + (1 if row["side"] else -1)
    taken = [(pair, group, user, side > 0) for (pair, group, user), side in sides.items() if side]
    judges = Counter(pair for pair, *_ in taken)
    return [vote for vote in taken if judges[vote[0]] > 1]


def alpha(taken):
    """Krippendorff's alpha by the package of that name."""
    pairs = sorted({pair for pair, *_ in taken})
    counts = np.zeros((len(pairs), 2), dtype=int)
    for pair, _, _, side in taken:
        counts[pairs.index(pair), int(side)] += 1
    return krippendorff.alpha(value_counts=counts, level_of_measurement="nominal")


def alpha_within(taken):
    """Agreement of people of one group: their disagreement against that which is expected of everybody's labels."""
    observed = weight = 0.0
    for pair in {pair for pair, *_ in taken}:
        judges = [(group, side) for of, group, _, side in taken if of == pair]
        for at, (group, side) in enumerate(judges):
            for other_group, other_side in judges[:at]:
                if group == other_group:
                    weight += 1.0 / (len(judges) - 1)
                    observed += (side != other_side) / (len(judges) - 1)
    total, first = len(taken), sum(side for *_, side in taken)
    expected = 2.0 * first * (total - first) / (total * (total - 1))
    return 1.0 - observed / weight / expected


def drawn(rows, group_by, draws=500):
    """Fairlearn's frame of accuracy by group with the 95 % intervals of its bootstrap."""
    preferences = rows["preference"].to_numpy(float)
    right = (preferences > 0.5) + 0.5 * (preferences == 0.5)
    return MetricFrame(
        metrics=mean_prediction,
        y_true=np.ones(len(rows)),
        y_pred=right,
        sensitive_features=rows[group_by],
        n_boot=draws,
        ci_quantiles=[0.025, 0.975],
        random_state=1,
    )
