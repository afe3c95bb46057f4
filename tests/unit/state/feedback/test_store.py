import random
import time
from contextlib import closing
from math import fsum

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from service.errors import BadSetting
from service.state.feedback import store as module
from service.state.feedback.store import DAY, FILE_NAME, begin_feedback, open_feedback
from service.state.puids import PUID_BYTES, storage_bytes, storage_key
from service.truths import Confusion, FeedbackSummary, Statement
from tests.support.feedback import add_truth, query, recount, row


def add_reward(store, puid, reward, row=None):
    return store.add(Statement(puid, reward=reward, row=row))


def test_what_is_added_is_read_back(store, tmp_path):
    add_truth(store, "p", 1, 1)
    summary = add_truth(store, "q", 1, 0)
    assert summary.total == summary.recent == Confusion(true_positive=1, false_positive=1)
    assert begin_feedback(tmp_path).read() == summary


def test_a_message_sent_twice_counts_once(store, path):
    message = Statement("p", truths=(0, 1), reward=500_000), [row(0), row(1, 1)]
    first = store.add(*message)
    second = store.add(*message)
    assert (first.total.rows, first.rewarded, first.reward) == (2, 1, 0.5)
    assert (second.total, second.rewarded, second.reward) == (first.total, 1, 0.5)
    assert query(path, "SELECT count(*) FROM truth_revisions") == [(0,)]
    assert query(path, "SELECT count(*) FROM reward_revisions") == [(0,)]


def test_a_later_truth_is_a_revision_and_keeps_the_rows_position(tmp_path, path):
    store = begin_feedback(tmp_path, window=2)
    for number in range(3):
        add_truth(store, f"p{number}", 0, 0)
    summary = add_truth(store, "p0", 0, 1)
    assert summary.total == Confusion(true_negative=2, false_negative=1)
    assert summary.recent == Confusion(true_negative=2)
    assert add_truth(store, "p2", 0, 1).recent == Confusion(true_negative=1, false_negative=1)
    revisions = query(path, "SELECT puid, truth FROM truth_revisions ORDER BY puid")
    assert revisions == [("p0", 0), ("p2", 0)]


def test_a_recorded_label_is_never_replaced_by_one_scored_again(store):
    add_truth(store, "p", 1, 0, version="old")
    assert add_truth(store, "p", 0, 0, recorded=False).total == Confusion(false_positive=1)
    assert add_truth(store, "p", 0, 1, recorded=False).total == Confusion(true_positive=1)
    assert store.find("p", 0, 9)[0].version == "old"
    assert add_truth(store, "p", 0, 1, version="new").total == Confusion(false_negative=1)
    assert store.find("p", 0, 9)[0].version == "new"


def test_rewards_sum_up_exactly(store):
    rewards = [0.1] * 10 + [1e6, 0.000001, -1e6, -0.25]
    for number, reward in enumerate(rewards):
        summary = add_reward(store, f"p{number}", round(reward * 1e6))
    assert (summary.rewarded, summary.reward) == (14, fsum(rewards))
    summary = add_reward(store, "p0", 0)
    assert (summary.rewarded, summary.reward) == (13, fsum(rewards[1:]))
    assert add_reward(store, "p1", 100_000, row=0).rewarded == 14
    assert summary.total.rows == 0


def test_accepted_messages_and_positive_rewards_never_fall(store):
    for reward in (500_000, 500_000, -2_000_000, 0):
        summary = add_reward(store, "p", reward)
    assert (summary.accepted, summary.accepted_reward) == (4, 1.0)
    add_truth(store, "q", 1, 1)
    store.add(Statement("empty"))
    store.count_unmatched()
    store.delete(before=time.time() + 1)
    summary = store.read()
    assert (summary.accepted, summary.accepted_reward) == (5, 1.0)
    assert (summary.total.rows, summary.rewarded, summary.reward) == (0, 0, 0)


def test_unmatched_feedback_is_counted_separately(store):
    store.count_unmatched()
    assert store.read() == FeedbackSummary(unmatched=1)


def test_only_the_requested_rows_are_found(store):
    store.add(Statement("p", truths=(0,) * 5), [row(n % 2, n) for n in range(5)])
    assert sorted(store.find("p", 1, 3)) == [1, 2, 3]
    assert store.find("p", 1, 3)[3] == row(1, 3)
    assert store.find("q", 0, 9) == {}


def test_a_prediction_is_known_by_its_truth_or_its_reward(store):
    add_truth(store, "p", 1, 1)
    add_reward(store, "q", 1)
    assert [store.knows(puid) for puid in "pqr"] == [True, True, False]


def test_a_long_puid_is_stored_as_a_short_one(store, path):
    for end in "ab":
        add_truth(store, "x" * 10**6 + end, 1, 1)
    assert store.read().total.rows == 2
    assert max(len(puid) for (puid,) in query(path, "SELECT puid FROM truths")) < 200
    assert store.delete(puid="x" * 10**6 + "a") == 1


def test_the_key_of_a_long_puid_is_its_beginning_and_a_hash():
    assert storage_key("p" * 200, 200) == "p" * 200
    # From a file of an earlier version: another rule would not find its feedback again.
    assert storage_key("x" * 1000 + "a", 200) == "x" * 100 + "~65ddd0ed1366bd22e6541963bcea5d56"


@pytest.mark.parametrize("seed", range(3))
def test_every_figure_equals_scikit_learns_on_the_stored_rows(tmp_path, path, seed):
    chance = random.Random(seed)
    store = begin_feedback(tmp_path, window=30)
    for _ in range(300):
        truth = chance.randrange(2)
        number = chance.randrange(90)
        gauges = add_truth(store, f"p{number}", int(number % 3 == 0), truth).gauges()
    pairs = query(path, "SELECT label, truth FROM truths ORDER BY id")
    for suffix, part in (("tot", pairs), ("roll", pairs[-30:])):
        y_pred, y_true = zip(*part, strict=True)
        assert gauges[f"accuracy_{suffix}"] == metrics.accuracy_score(y_true, y_pred)
        assert gauges[f"precision_{suffix}"] == metrics.precision_score(y_true, y_pred)
        assert gauges[f"recall_{suffix}"] == metrics.recall_score(y_true, y_pred)
        assert gauges[f"f1_{suffix}"] == metrics.f1_score(y_true, y_pred)
        assert gauges[f"f2_{suffix}"] == metrics.fbeta_score(y_true, y_pred, beta=2)
    matrix = metrics.confusion_matrix(*zip(*[(t, p) for p, t in pairs], strict=True)).ravel()
    names = ["true_negative", "false_positive", "false_negative", "true_positive"]
    assert [gauges[name] for name in names] == matrix.tolist()


class Model:
    """What a store should hold, in two dictionaries."""

    def __init__(self):
        self.truths, self.rewards = {}, {}
        """By (puid, row): label, truth, recorded, the time of the first; reward and its time."""
        self.accepted = self.accepted_reward = 0

    def add(self, now, puid, rows, truths, *, reward, row):
        self.accepted += bool(rows) or reward is not None
        for one, truth in zip(rows, truths, strict=True):
            key = puid, one.row_index
            label, old, recorded, first = self.truths.get(key, (None, None, False, now))
            if one.recorded >= recorded:
                counted, recorded = one.label, one.recorded
            else:
                counted = label
            if (counted, truth) != (label, old):
                self.truths[key] = counted, truth, recorded, first
        if reward is not None:
            _, first = self.rewards.get((puid, row), (reward, now))
            self.rewards[puid, row] = reward, first
            self.accepted_reward += max(reward, 0)

    def delete(self, puid=None, before=None):
        for table in (self.truths, self.rewards):
            for key, value in list(table.items()):
                if key[0] == puid or (before is not None and value[-1] < before):
                    del table[key]

    def check(self, summary):
        pairs = [(label, truth) for label, truth, *_ in self.truths.values()]
        rewards = [reward for reward, _ in self.rewards.values()]
        assert summary == FeedbackSummary(
            total=Confusion(*(pairs.count(cell) for cell in ((0, 0), (1, 0), (0, 1), (1, 1)))),
            recent=summary.recent,
            rewarded=len(rewards) - rewards.count(0),
            reward=sum(rewards) / 1_000_000,
            accepted=self.accepted,
            accepted_reward=self.accepted_reward / 1_000_000,
            models=summary.models,
        )


bits, puids = st.integers(0, 1), st.sampled_from("pqr")
rewards = st.none() | st.sampled_from((0, 1, 100_000, -2_500_000, 10**12, -(10**12)))
additions = st.tuples(
    st.just("add"),
    puids,
    st.lists(st.tuples(bits, bits, st.booleans()), max_size=3),
    rewards,
    st.none() | st.integers(0, 1),
)
deletions = st.tuples(st.just("delete"), puids) | st.tuples(st.just("before"), st.integers(0, 9))
steps = st.lists(additions | additions | deletions | st.tuples(st.just("expire")), max_size=20)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=steps)
def test_totals_equal_a_recount_after_every_step(tmp_path_factory, monkeypatch, steps):
    """A clock of our own ticks at each step; feedback is kept for three days, a step each."""
    folder, model, now = tmp_path_factory.mktemp("feedback"), Model(), [1e9]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    monkeypatch.setattr(module, "_EXPIRED_AT_ONCE", 2)
    with closing(begin_feedback(folder, window=2, keep_days=3)) as store:
        for step, *arguments in steps:
            now[0] += DAY
            if step == "add":
                puid, cells, reward, row_index = arguments
                rows = [row(label, n, recorded) for n, (label, _, recorded) in enumerate(cells)]
                truths = tuple(truth for _, truth, _ in cells)
                store.delete_expired()
                model.delete(before=now[0] - 3 * DAY)
                store.add(Statement(puid, False, row_index, truths, reward), rows)
                model.add(now[0], puid, rows, truths, reward=reward, row=row_index)
            elif step == "delete":
                store.delete(puid=arguments[0])
                model.delete(puid=arguments[0])
            elif step == "before":
                store.delete(before=now[0] - arguments[0] * DAY)
                model.delete(before=now[0] - arguments[0] * DAY)
            else:
                store.is_up()  # which deletes two of the expired at most
            check_against_tables(store.read(), folder / FILE_NAME)
        store.delete_expired()
        model.delete(before=now[0] - 3 * DAY)
        model.check(store.read())


def check_against_tables(summary, path):
    """Compare the totals with the tables; revisions belong to rows that are still there."""
    assert summary.total == recount(path)
    assert summary.recent == recount(path, 2)
    found = [reward for (reward,) in query(path, "SELECT reward FROM rewards")]
    assert summary.reward == sum(found) / 1_000_000
    assert summary.rewarded == len(found) - found.count(0)
    for table, revisions in (("truths", "truth_revisions"), ("rewards", "reward_revisions")):
        known = set(query(path, f"SELECT puid, row_index FROM {table}"))
        assert set(query(path, f"SELECT puid, row_index FROM {revisions}")) <= known


def test_deleting_removes_rows_rewards_and_revisions_from_every_figure(store, path):
    for puid in "pq":
        store.add(Statement(puid, truths=(1, 0), reward=1_000_000), [row(1), row(1, 1)])
        store.add(Statement(puid, truths=(0,), reward=2_000_000), [row(1)])
    assert store.delete(puid="p") == 3
    summary = store.read()
    assert summary.total == summary.recent == Confusion(false_positive=2)
    assert (summary.rewarded, summary.reward) == (1, 2.0)
    for table in ("truth_revisions", "reward_revisions"):
        assert query(path, f"SELECT puid FROM {table}") == [("q",)]
    assert store.delete(before=time.time() + 1) == 3
    assert store.read().total.rows == 0


def test_feedback_is_deleted_after_its_retention_time(tmp_path, path, monkeypatch):
    now = time.time()
    store = begin_feedback(tmp_path, keep_days=30)
    for days in (40, 31, 29):
        with monkeypatch.context() as patch:
            patch.setattr(module.time, "time", lambda days=days: now - days * DAY)
            store.add(Statement(f"p{days}", truths=(1,), reward=500_000), [row(1)])
    assert store.read().total.rows == 3  # none was too old when it was added
    summary = add_truth(store, "new", 0, 0)
    assert summary.total == recount(path) == Confusion(true_negative=1, true_positive=1)
    assert (summary.rewarded, summary.reward) == (1, 0.5)
    store.close()
    assert begin_feedback(tmp_path, keep_days=7).read().total.rows == 1
    assert begin_feedback(tmp_path).read().total.rows == 1


def test_expired_feedback_is_deleted_in_pieces(tmp_path, monkeypatch):
    store = begin_feedback(tmp_path, keep_days=30)
    with monkeypatch.context() as patch:
        patch.setattr(module.time, "time", lambda: 1e9)
        store.add(Statement("old", truths=(1,) * 250), [row(1, n) for n in range(250)])
    left = [add_truth(store, f"p{n}", 0, 0).total.true_positive for n in range(4)]
    assert left == [150, 50, 0, 0]


def test_an_export_before_the_first_feedback_has_columns_and_no_lines(store):
    assert store.history()["puid"] == ()


def test_all_feedback_can_be_read(store):
    store.add(Statement("p", truths=(0,), reward=100_000), [row(1, score=-0.5)])
    store.add(Statement("p", truths=(1,)), [row(1, score=-0.5)])
    table = store.history()
    assert list(table) == [
        *("time", "puid", "row", "predicted", "truth"),
        *("reward", "score", "model_version", "recorded", "current"),
    ]
    names = ("row", "truth", "reward", "current")
    lines = zip(*(table[name] for name in names), strict=True)
    assert sorted(lines, key=str) == [(0, 0, None, 0), (0, 1, None, 1), (None, None, 0.1, 1)]
    assert table["truth"][-1] == 1
    assert set(table["score"]) == {-0.5, None}


def test_opening_a_missing_database_for_reading_is_refused(tmp_path):
    with pytest.raises(BadSetting, match="does not exist"):
        open_feedback(tmp_path)
    begin_feedback(tmp_path)
    assert open_feedback(tmp_path).read().total.rows == 0


def test_a_truth_that_is_taken_back_had_never_come(store, path):
    before = add_truth(store, "p", 1, 1)
    add_truth(store, "q", 1, 0)
    add_truth(store, "q", 1, 1)
    assert store.find_truth("q", 0) == 1
    assert store.are_labelled([("q", 0), ("q", 1), ("r", 0)]) == [True, False, False]
    assert store.take_back("q", 0)
    assert store.find_truth("q", 0) is None
    assert store.read().total == before.total == recount(path)
    assert query(path, "SELECT count(*) FROM truth_revisions") == [(0,)]
    assert store.read().accepted == 3
    assert not store.take_back("q", 0)


def test_taking_a_truth_back_leaves_other_rows_and_rewards(store):
    store.add(Statement("p", truths=(0, 1)), [row(0), row(1, 1)])
    add_reward(store, "p", 500_000, row=1)
    store.take_back("p", 1)
    summary = store.read()
    assert (summary.total, summary.rewarded) == (Confusion(true_negative=1), 1)


def test_the_last_truths_come_latest_first(store):
    for i in range(5):
        add_truth(store, f"p{i}", 1, i % 2)
    add_truth(store, "p3", 1, 0)
    found = [(one.puid, one.row_index, one.truth) for one in store.last_truths(3)]
    assert found == [("p4", 0, 0), ("p3", 0, 0), ("p2", 0, 0)]


def test_a_label_of_a_long_puid_is_known_by_the_name_in_the_record(store):
    add_truth(store, "a" * 300, 1, 1)
    assert store.last_truths(1)[0].name == storage_bytes("a" * 300, PUID_BYTES)


YEAR = 365 * DAY


@pytest.mark.parametrize("years", [-2, 3, 1000])
def test_a_clock_that_was_set_wrong_deletes_nothing_and_is_told_once(
    tmp_path, monkeypatch, caplog, years
):
    store = begin_feedback(tmp_path, keep_days=30)
    add_truth(store, "p", 1, 1)
    store.close()
    now = time.time()
    with monkeypatch.context() as patch:
        patch.setattr(module.time, "time", lambda: now + years * YEAR)
        store = begin_feedback(tmp_path, keep_days=30)
        for puid in "abc":
            rows = add_truth(store, puid, 0, 0).total.rows
        store.close()
    assert rows == 4
    assert caplog.text.count("no old feedback is deleted; set the clock right") == 1
    assert begin_feedback(tmp_path, keep_days=30).find("p", 0, 0)


def test_a_long_but_plausible_time_deletes_expired_feedback_and_says_how_much(
    tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    store = begin_feedback(tmp_path, keep_days=30)
    add_truth(store, "p", 1, 1)
    store.close()
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 300 * DAY)
    assert begin_feedback(tmp_path, keep_days=30).read().total.rows == 0
    assert "1 truths and rewards are deleted: they are older than 30 days" in caplog.text


def test_the_figures_say_which_models_they_are_about(store):
    assert store.read().models == ()
    for number, version in enumerate(["b2", "a1", "b2", "c3"]):
        summary = add_truth(store, f"p{number}", 1, 1, version=version)
    assert summary.models == ("a1", "b2", "c3")
    assert tuple(sorted(store.count_versions())) == summary.models
    store.delete("p3")
    assert store.read().models == ("a1", "b2")
