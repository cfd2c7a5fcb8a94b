"""Which tier of a site takes a job."""

import pytest

from p2p_dist.jobs import site, tiers
from p2p_dist.jobs.tiers import Tier
from p2p_dist.settings import config

SHORT = Tier("test", "gpus", "debug", time="0:30:00", nodes=2, jobs=2)
USUAL = Tier("gpu", "gpus", "normal", time="1-00:00:00", nodes=64, gpus=128)
LARGE = Tier("gpu", "gpus", "large", time="1-00:00:00", least_nodes=65, nodes=256)
SHARED = Tier("gpu", "gpus", "shared", time="4-00:00:00", nodes=3)
LONG = Tier("gpu", "gpus", "long", time="4-00:00:00", nodes=3, least_gpus=4)


@pytest.mark.parametrize(
    ("nodes", "gpus", "hours", "chosen"),
    [
        *((1, 4, 24, "normal"), (64, 128, 24, "normal"), (65, 260, 24, "large"), (256, 1024, 24, "large")),
        *((3, 12, 25, "long"), (3, 4, 96, "long"), (2, 0, 96, "long")),
        # The nearest where none takes it: fewest limits exceeded, then by the least.
        *((257, 1028, 24, "large"), (4, 16, 96, "long"), (1, 3, 25, "normal"), (1, 4, 97, "long"), (30, 129, 24, "normal")),
    ],
)
def test_the_first_tier_that_takes_a_job_is_chosen_else_the_nearest(nodes, gpus, hours, chosen):
    assert tiers.choose([USUAL, LARGE, LONG], [(nodes, gpus)], hours * 60)[0].name == chosen


def test_why_not_an_earlier_tier():
    assert tiers.choose([USUAL, LONG], [(1, 4)], 60) == (USUAL, "")
    assert tiers.choose([USUAL, LARGE, LONG], [(1, 4)], 48 * 60)[1] == (
        "normal: 1-64 nodes, at most 128 GPUs, at most 1-00:00:00; large: 65-256 nodes, at most 1-00:00:00"
    )
    assert LONG.limits() == "1-3 nodes, at least 4 GPUs, at most 4-00:00:00" and Tier().limits() == ""
    assert Tier(least_nodes=2).limits() == "at least 2 nodes"


def test_what_a_job_exceeds_is_named_with_its_option():
    said = [text for _, text in LONG.misses([(4, 3)], 97 * 60)]
    assert said == [
        "--time asks for 97 hours, long allows at most 4-00:00:00: add --time 4-00:00:00 or less, "
        "a longer training continues in the next job",
        "--nodes 4: a job in long has at most 3",
        "3 GPUs (--nodes, --processes-per-node): a job in long has at least 4",
    ]
    assert LONG.misses([(3, 4)], 96 * 60) == [] and LONG.misses([(3, 0)], 0) == [], "without GPUs, and for what time there is"
    assert [text for _, text in LARGE.misses([(64, 0)], 0)] == ["--nodes 64: a job in large has at least 65"]
    assert [text for _, text in USUAL.misses([(1, 129)], 0)] == [
        "129 GPUs (--nodes, --processes-per-node): a job in normal has at most 128"
    ]


def test_a_job_that_can_be_continued_asks_for_no_more_than_its_tier_allows():
    asked = [tiers.shortened("96:00:00", tier) for tier in (SHORT, USUAL, Tier())]
    assert asked == [30, 1440, 5760] and tiers.shortened("0:10:01", SHORT) == 11, "whole minutes"


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ({"least_nodes": 3, "nodes": 2}, "least_nodes 3 is more than nodes 2"),
        ({"least_gpus": 5, "gpus": 4}, "least_gpus 5 is more than gpus 4"),
        ({"kind": "big"}, "kind must be one of gpu, test, cpu, not 'big'"),
        ({"nodes": 0}, "nodes must be greater than 0"),
        ({"default_time": "soon"}, "default_time must be greater than zero"),
    ],
)
def test_a_tier_that_takes_nothing_is_refused(of, said):
    with pytest.raises(ValueError, match=said):
        Tier(**of)
    assert Tier(least_nodes=2, nodes=2, least_gpus=4, gpus=4).nodes == 2


def chosen(place, stage, **resources):
    return place.tier(stage, config.Resources(**{"time": "0:20:00"} | resources))[0].name


def test_a_range_of_nodes_goes_where_both_its_ends_are_taken():
    """As on Frontier, where time depends on the nodes. If it failed: Slurm rejects a start on the fewest, or on the most."""
    place = site.Site(tiers=[SHARED, USUAL, LARGE], gpus_per_node=2)
    assert chosen(place, "train", nodes=3) == "shared" and chosen(place, "train", nodes=3, least_nodes=2) == "shared"
    assert chosen(place, "train", nodes=64, least_nodes=3) == "normal"
    assert chosen(place, "train", nodes=70, least_nodes=65) == "large"
    place = site.Site(tiers=[LARGE, Tier("gpu", "gpus", "any", nodes=256)], gpus_per_node=2)
    assert chosen(place, "train", nodes=70) == "large" and chosen(place, "train", nodes=70, least_nodes=2) == "any"
    said = [text for _, text in LARGE.misses([(64, 128), (257, 514)], 0)]
    assert said == ["--nodes 64: a job in large has at least 65", "--nodes 257: a job in large has at most 256"]


def test_each_stage_has_a_tier_of_its_kind():
    """Short checks where short jobs start soon; single GPUs where nodes are shared; no GPU node for work without GPUs."""
    thin = Tier("cpu", "thin", time="1:00:00")
    place = site.Site(tiers=[SHORT, USUAL, SHARED, thin], gpus_per_node=4, whole_nodes=["normal"], evaluate_processes=4)
    assert [chosen(place, stage) for stage in ("preprocess", "train", "evaluate", "page")] == [
        "thin",
        "normal",
        "normal",
        "thin",
    ]
    assert chosen(place, "preflight") == "debug" and chosen(place, "scaling") == "normal"
    assert chosen(place, "preflight", nodes=3) == "normal" and chosen(place, "preflight", time="40") == "normal"
    assert chosen(place, "generate") == "shared", "one GPU: a whole node would be billed and idle"
    assert chosen(place, "train", processes_per_node=1) == "normal", "as the file lists them"
    few = site.Site(tiers=[USUAL, SHARED, thin], gpus_per_node=4, whole_nodes=["normal"], evaluate_processes=3)
    assert chosen(few, "evaluate") == "shared"
    assert chosen(place, "train", partition="debug") == "debug" and chosen(place, "evaluate", partition="debug") == "debug"
    assert chosen(place, "train", partition="gpus") == "normal", "a tier for tests only by its own name"
    assert chosen(place, "train", partition="gpus", time="48:00:00") == "shared"
    assert chosen(place, "preflight", partition="gpus") == "debug"
    assert chosen(place, "train", partition="other") == "other" and chosen(place, "page", partition="debug") == "thin"
    alone = site.Site(tiers=[USUAL], gpus_per_node=4)
    assert chosen(alone, "preprocess") == "normal" == chosen(alone, "page")


def test_where_cpu_nodes_are_others_the_page_is_made_on_gpu_nodes():
    for other in ({"cpu_cluster": "andes"}, {"architecture": "aarch64", "cpu_architecture": "x86_64"}):
        place = site.Site(tiers=[USUAL, Tier("cpu", "thin")], gpus_per_node=4, **other)
        assert place.has_other_cpu_nodes and chosen(place, "page") == "normal" == chosen(place, "preprocess")
    assert chosen(place.preprocessing_in(None), "preprocess") == "thin"
    same = site.Site(tiers=[USUAL, Tier("cpu", "thin")], architecture="aarch64", cpu_architecture="aarch64")
    assert not same.has_other_cpu_nodes and not site.Site(architecture="aarch64").has_other_cpu_nodes


def test_a_check_asks_for_what_a_training_does_also_in_a_tier_for_tests():
    place = site.Site(tiers=[SHORT, USUAL, SHARED], gpus_per_node=4, whole_nodes=["normal"])
    assert place.takes_whole_nodes("preflight", config.Resources(time="10"))
    assert not place.takes_whole_nodes("preflight", config.Resources(time="10", partition="shared"))
    assert not place.takes_whole_nodes("generate", config.Resources())


def test_preprocessing_goes_where_its_command_says():
    place = site.Site(tiers=[USUAL, Tier("cpu", "thin")], cpu_cluster="andes", architecture="aarch64")
    assert place.preprocessing_in(None).has_other_cpu_nodes
    moved = place.preprocessing_in("normal")
    assert chosen(moved, "preprocess") == "normal" and moved.tier("preprocess", config.Resources())[0].time == "1-00:00:00"
    assert not moved.has_other_cpu_nodes and chosen(place.preprocessing_in("new"), "preprocess") == "new"
    assert site.Site(cpu_partition="a").preprocessing_in("b").cpu_partition == "b"
