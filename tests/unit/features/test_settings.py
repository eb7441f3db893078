from __future__ import annotations

import pytest

from features.settings import Settings, load_settings


def test_without_any_variable_everything_is_on_loopback_and_the_documented_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = load_settings()
    assert settings.host == settings.triton_host == "127.0.0.1"
    ports = ("grpc", "operator", "http", "triton_http", "triton_grpc", "triton_metrics")
    assert [getattr(settings, f"{name}_port") for name in ports] == [50051, 50052, 8080, 8000, 8001, 8002]
    assert settings.triton_target == "127.0.0.1:8001"


def test_where_all_addresses_are_bound_that_of_this_machine_is_called() -> None:
    settings = Settings(host="0.0.0.0", operator_host="0.0.0.0")
    assert settings.gateway_host == "127.0.0.1"
    assert settings.gateway_target == "127.0.0.1:50051"
    assert settings.operator_target == "127.0.0.1:50052"
    apart = Settings(host="10.0.0.1", operator_host="10.0.0.2")
    assert (apart.gateway_target, apart.operator_target) == ("10.0.0.1:50051", "10.0.0.2:50052")


def test_a_remote_triton_is_called_instead_of_the_one_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPTIDE_TRITON_ADDRESS", "triton.example:9001")
    assert load_settings().triton_target == "triton.example:9001"


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("RIPTIDE_GRPC_PROT", "1", "RIPTIDE_GRPC_PROT: no such setting"),
        ("RIPTIDE_GRPC_PORT", "0", "RIPTIDE_GRPC_PORT: Input should be greater than or equal to 1, not '0'"),
        ("RIPTIDE_WORKERS", "two", "RIPTIDE_WORKERS: Input should be a valid integer"),
        *(
            ("RIPTIDE_TRITON_ADDRESS", address, "RIPTIDE_TRITON_ADDRESS: must be host:port, ")
            for address in ("nonsense", ":8001", "triton:", "triton:0", "triton:65536", "a b:80", "1.2:80")
        ),
        ("RIPTIDE_LOG_LEVEL", "LOUD", "RIPTIDE_LOG_LEVEL: "),
    ],
)
def test_a_wrong_setting_ends_the_process_with_its_name_and_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as ended:
        load_settings()
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(sentence)


@pytest.mark.parametrize("field", Settings.model_fields)
def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """As env files have them: nobody means a Triton at no address, or the state in the working directory."""
    monkeypatch.delenv(f"RIPTIDE_{field.upper()}", raising=False)
    unset = load_settings()
    monkeypatch.setenv(f"RIPTIDE_{field.upper()}", "")
    assert load_settings() == unset


def test_where_traces_go_must_be_a_url_if_there_are_any(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", raising=False)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "127.0.0.1:4318")
    load_settings()
    monkeypatch.setenv("RIPTIDE_TRACE_RATIO", "0.01")
    with pytest.raises(SystemExit) as ended:
        load_settings()
    assert ended.value.code == 2
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: must begin with http://" in capsys.readouterr().err
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318/")
    assert load_settings().traces_url == "https://collector:4318/v1/traces"


def test_opentelemetrys_own_switch_turns_traces_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIPTIDE_TRACE_RATIO", "0.5")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "nowhere")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "True")
    assert load_settings().traced_ratio == 0
    monkeypatch.setenv("OTEL_SDK_DISABLED", "false")
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT")
    assert load_settings().traced_ratio == 0.5


def test_every_setting_is_documented() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
