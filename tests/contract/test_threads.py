"""One backbone under many threads and after a fork: predictions and base weights are those of one thread."""

import multiprocessing
import sys
import threading

import pytest
import torch
from matrix import make_pipeline
from toys import ROWS

from fewshot_nlp.tasks import TASKS

N_ADAPTING, N_PREDICTING, ROUNDS = 4, 8, 2


@pytest.fixture
def hasty():
    """Threads change places all the time."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def adapted(pipeline, seed):
    examples = pipeline.task.examples(ROWS[pipeline.task.name](2, seed=seed))
    return pipeline.adapt(examples, pipeline.task.labels(examples))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("scope", ["all", "adapter"])
@pytest.mark.parametrize("task", TASKS.names())
def test_threads_that_adapt_and_predict_leave_one_another_alone(task, scope, tiny_folders):
    pipeline = make_pipeline(tiny_folders, task, "fine_tune", scope=scope, steps=3, lr=0.01)
    queries = [example.query for example in pipeline.task.examples(ROWS[task](2, seed=9))]
    before = {name: p.detach().clone() for name, p in pipeline.learner.encoder.parameters().items()}
    models = [adapted(pipeline, seed) for seed in range(N_ADAPTING)]
    expected = [model.predict(queries) for model in models]
    problems = []

    def adapt(number):
        again = adapted(pipeline, number).adapted.state
        for name, value in models[number].adapted.state.items():
            torch.testing.assert_close(again[name], value, rtol=1e-4, atol=1e-5)

    def predict(number):
        got, wanted = models[number % N_ADAPTING].predict(queries), expected[number % N_ADAPTING]
        assert [p["target"] for p in got] == [p["target"] for p in wanted]
        if "score" in wanted[0]:
            assert [p["score"] for p in got] == pytest.approx([p["score"] for p in wanted], abs=1e-5)

    def work(job, number):
        try:
            for _ in range(ROUNDS):
                job(number)
        except Exception as error:  # noqa: BLE001 - told below
            problems.append(f"{job.__name__} {number}: {error!r}")

    jobs = [(adapt, n) for n in range(N_ADAPTING)] + [(predict, n) for n in range(N_PREDICTING)]
    threads = [threading.Thread(target=work, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems
    after = pipeline.learner.encoder.parameters()
    assert [name for name, value in before.items() if not torch.equal(after[name], value)] == []


def product():
    """A product that torch divides among its threads."""
    large = torch.ones(1500, 1500)
    return float((large @ large)[0, 0])


def answer(pipe, model, queries):
    assert product() == 1500
    pipe.send((torch.get_num_threads(), [p["target"] for p in model.predict(queries)]))


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system starts processes otherwise"
)
@pytest.mark.parametrize("task", ["classification", "translation"])
def test_a_forked_process_predicts_though_torch_had_threads(task, tiny_folders):
    pipeline = make_pipeline(tiny_folders, task, "prototypical")
    model = adapted(pipeline, 0)
    queries = [example.query for example in pipeline.task.examples(ROWS[task](2, seed=9))]
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert product() == 1500  # starts torch's threads, which a fork does not copy
        expected = [p["target"] for p in model.predict(queries)]
        ours, theirs = multiprocessing.Pipe()
        child = multiprocessing.get_context("fork").Process(target=answer, args=(theirs, model, queries))
        child.start()
        try:
            assert ours.poll(30), "the forked process hangs"
            assert ours.recv() == (1, expected)
        finally:
            child.kill()
            child.join()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(n_threads)


def test_a_fork_waits_for_the_passes_of_other_threads(tiny_folders):
    """A child that was made in the middle of another thread's pass would keep that pass's weights, and its lock."""
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system starts processes otherwise")
    pipeline = make_pipeline(tiny_folders, "translation", "fine_tune", scope="all", steps=2)
    model = adapted(pipeline, 0)
    queries = [example.query for example in pipeline.task.examples(ROWS["translation"](2, seed=9))]
    unadapted, stop = pipeline.unadapted(), threading.Event()
    expected = [p["target"] for p in unadapted.predict(queries)]

    def predict():
        while not stop.is_set():
            model.predict(queries)

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        for _ in range(4):
            ours, theirs = multiprocessing.Pipe()
            child = multiprocessing.get_context("fork").Process(
                target=answer, args=(theirs, unadapted, queries)
            )
            child.start()
            try:
                assert ours.poll(30), "the forked process hangs"
                assert ours.recv()[1] == expected
            finally:
                child.kill()
                child.join()
    finally:
        stop.set()
        thread.join()
