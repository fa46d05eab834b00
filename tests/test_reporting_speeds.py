"""Speeds by card: what was measured on which device, from publications and from archives of random data."""

import pytest
from reporting_factory import throughput

from replications.errors import UserError
from replications.records import synthetic_path, write_record
from replications.reporting import formats
from replications.reporting.speeds import publish_speeds, read_speeds, speeds_table


def on_card(address, **changes):
    record = throughput(address, tier="paper", synthetic=True, **changes)
    record.provenance = record.provenance.model_copy(
        update={"device": "H100", "device_kind": "cuda", "packages": {"torch": "2.9", "driver": "570.1"}}
    )
    return record


def test_speeds_on_random_data_are_published_and_read_again(tmp_path):
    fast = on_card("arcface/arcface", mfu=0.421, train_step_seconds=[0.1, 0.3, 0.2], compiled=True)
    for record, variant in ((fast, "compiled"), (on_card("deepid/deepid", status="failed"), "")):
        write_record(record, synthetic_path(tmp_path / "results/paper", record.paper, record.method, variant))
    folder = publish_speeds(tmp_path / "results", tmp_path / "published", "slot")
    assert folder.name == "speeds-slot"
    found = list(read_speeds(tmp_path / "published", []))
    assert found == [("speeds-slot", fast)]
    with pytest.raises(UserError, match="published already"):
        publish_speeds(tmp_path / "results", tmp_path / "published", "slot")
    with pytest.raises(UserError, match="no finished record"):
        publish_speeds(tmp_path, tmp_path / "published", "other")


def test_a_section_a_card_gpus_first():
    cpu, busy = throughput("arcface/arcface"), throughput("deepid/deepid", background_load=0.5)
    gpu = on_card("arcface/arcface", mfu=0.421, train_step_seconds=[0.1, 0.3, 0.2], compiled=True, precision="bf16")
    table = speeds_table([("a", cpu), ("b", busy), ("speeds-slot", gpu)])
    assert [title for title, _ in table.sections] == ["H100", cpu.provenance.cpu]
    ((_, cells),) = table.sections[0][1]
    shown = [cell.text for cell in cells]
    assert shown[1:3] == ["paper, random data", f"{gpu.batch_size}, bf16, compiled"]
    assert shown[4] == "200" and shown[7] == "42.1", "the median step in ms; MFU in percent"
    assert shown[9] == "torch 2.9, driver 570.1" and shown[10] == "[speeds-slot](speeds-slot/records.jsonl.xz)"
    assert "50% of the machine in use by others" in formats.to_markdown([table])
