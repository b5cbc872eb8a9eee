"""What the notebooks need apart from retrieval itself.

A runner, figures, the checks of the exercises, and the small data sets of notebooks 01 and 09.
"""

from helpers.course.labelling import (
    SHOTS,
    agreement,
    clusters,
    hits,
    knn,
    probe_curve,
    rule_curve,
    tune_on_descriptions,
    tune_on_labels,
)
from helpers.course.relations import (
    DevRelation,
    alike,
    auc_each,
    difference,
    neighbours,
    relation_triplets,
    right_neighbours,
    roc,
    tune_on_pairs,
    tune_on_triplets,
    vectors_of,
)
from helpers.course.shop import (
    OBJECTIVES,
    bought_together,
    other_colours,
    read_products,
    related,
    simulate_carts,
    split_products,
    substitutes,
)
from helpers.course.tastes import among, compatibility, read_profiles, simulate_likes, split_people, statements
from helpers.course.transactions import open_transactions

__all__ = [
    "OBJECTIVES",
    "SHOTS",
    "DevRelation",
    "agreement",
    "alike",
    "among",
    "auc_each",
    "bought_together",
    "clusters",
    "compatibility",
    "difference",
    "hits",
    "knn",
    "neighbours",
    "open_transactions",
    "other_colours",
    "probe_curve",
    "read_products",
    "read_profiles",
    "related",
    "relation_triplets",
    "right_neighbours",
    "roc",
    "rule_curve",
    "simulate_carts",
    "simulate_likes",
    "split_people",
    "split_products",
    "statements",
    "substitutes",
    "tune_on_descriptions",
    "tune_on_labels",
    "tune_on_pairs",
    "tune_on_triplets",
    "vectors_of",
]
