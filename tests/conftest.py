"""The longest files go first: where several processes share the tests, none is left with one of them at the end."""

LONGEST = (
    "test_conformance.py",
    "test_workflow_end_to_end.py",
    "test_workflow_stopped.py",
    "test_reporting_pictures.py",
    "test_workflow_shell.py",
    "test_detection_weights.py",
    "test_new.py",
)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
