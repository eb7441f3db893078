"""The command line: what it sends, prints and ends with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from client.__main__ import main
from client.riptide.v1 import recommender_pb2 as pb
from client.riptide.v1.recommender_pb2_grpc import RecommenderServicer, add_RecommenderServicer_to_server


class Gateway(RecommenderServicer):
    """Answers with a fixed page, refuses a limit of 0, keeps what it was sent; has lost its store."""

    def __init__(self) -> None:
        self.pages: list[pb.RecommendRequest] = []
        self.events: list[pb.Event] = []

    def Recommend(self, request: Any, context: Any) -> pb.RecommendResponse:
        self.pages.append(request)
        if request.limit == 0:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "limit: 0 is not from 1 to 100")
        return pb.RecommendResponse(
            items=[
                pb.RecommendedItem(
                    item_id="50",
                    score=1.5,
                    rank=1,
                    title="Star Wars [1977]",
                    categories=["Action"],
                    reason=pb.Reason(item_id="181", title="Return of the Jedi") if request.explain else None,
                )
            ],
            model=pb.ModelVersion(name="recommender", version=4),
            degraded=pb.DEGRADED_REASON_COLD_START,
            request_id="r1",
            cohort="canary",
        )

    def RecordEvents(self, request: Any, context: Any) -> pb.RecordEventsResponse:
        self.events.extend(request.events)
        return pb.RecordEventsResponse(recorded=len(request.events))

    def DescribeUser(self, request: Any, context: Any) -> pb.DescribeUserResponse:
        return pb.DescribeUserResponse(
            user_id=request.user_id,
            events=[pb.DescribedEvent(item_id="7", title="Seven", type=pb.EVENT_TYPE_RATE, time=0, weight=4)],
            attributes={"occupation": "writer"},
            excluded_from_training=True,
            exposures=[pb.Exposure(arm="warm-start/treatment", time=60)],
        )

    def SimilarItems(self, request: Any, context: Any) -> None:
        context.set_trailing_metadata((("x-request-id", "r2"),))
        context.abort(grpc.StatusCode.UNAVAILABLE, "the feature store does not answer")

    def ForgetUser(self, request: Any, context: Any) -> pb.ForgetUserResponse:
        return pb.ForgetUserResponse(existed=True)


@pytest.fixture
def gateway() -> Iterator[tuple[Gateway, str]]:
    server = grpc.server(ThreadPoolExecutor(2))
    gateway = Gateway()
    add_RecommenderServicer_to_server(gateway, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield gateway, address
    server.stop(None).wait()


def test_a_page_is_a_table_that_says_who_answered_it_and_why_it_is_degraded(
    gateway: tuple[Gateway, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", "--user", "196", "--explain"], default_address=gateway[1]) == 0
    out = capsys.readouterr().out
    assert "Star Wars [1977]" in out
    assert "Return of the Jedi" in out
    assert "recommender version 4 (canary), request r1" in out
    assert "COLD_START" in out


def test_json_is_the_protobuf_mapping(
    gateway: tuple[Gateway, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--json", "recommend", "--user", "196"], default_address=gateway[1]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["items"][0]["itemId"] == "50"
    assert answer["model"] == {"name": "recommender", "version": "4"}


def test_a_refused_request_ends_with_2_and_the_sentence_of_the_server(
    gateway: tuple[Gateway, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", "--user", "196", "--limit", "0"], default_address=gateway[1]) == 2
    captured = capsys.readouterr()
    assert captured.err == "limit: 0 is not from 1 to 100\n"
    assert captured.out == ""


def test_a_number_that_the_contract_cannot_hold_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", "--user", "196", "--limit", "9999999999"], default_address="127.0.0.1:1") == 2
    assert "cannot be sent" in capsys.readouterr().err


def test_no_gateway_ends_with_1_and_one_line_that_names_the_address(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["describe", "--user", "196", "--address", "127.0.0.1:1"], default_address="127.0.0.1:2") == 1
    err = capsys.readouterr().err
    assert "127.0.0.1:1" in err
    assert err.count("\n") == 1


def test_a_gateway_whose_store_fails_is_not_called_away(
    gateway: tuple[Gateway, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["similar", "--item", "50"], default_address=gateway[1]) == 1
    assert capsys.readouterr().err == f"{gateway[1]}: UNAVAILABLE: the feature store does not answer\n"


def test_record_sends_one_event_for_each_item(gateway: tuple[Gateway, str]) -> None:
    words = "record --user u --item 1 2 --item 3 --type add_to_cart --weight 2.5 --time 99".split()
    assert main(words, default_address=gateway[1]) == 0
    assert [event.item_id for event in gateway[0].events] == ["1", "2", "3"]
    assert {(event.type, event.weight, event.time) for event in gateway[0].events} == {
        (pb.EVENT_TYPE_ADD_TO_CART, 2.5, 99)
    }


def test_a_page_is_asked_for_with_surface_diversity_and_time(gateway: tuple[Gateway, str]) -> None:
    words = "recommend --user u --surface basket --diversity 0.25 --time 99".split()
    assert main(words, default_address=gateway[1]) == 0
    assert main("recommend --user u".split(), default_address=gateway[1]) == 0
    asked = [(page.surface, page.diversity, page.time) for page in gateway[0].pages]
    assert asked == [("basket", 0.25, 99), ("", 0.0, 0)]


def test_a_weight_that_is_not_given_stays_unset(gateway: tuple[Gateway, str]) -> None:
    assert main(["record", "--user", "u", "--item", "1", "--type", "view"], default_address=gateway[1]) == 0
    assert not gateway[0].events[0].HasField("weight")


def test_an_unknown_event_type_is_refused_with_the_names_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["record", "--user", "u", "--item", "1", "--type", "clic"], default_address="127.0.0.1:1")
    err = capsys.readouterr().err
    assert "'clic'" in err
    assert "click" in err


def test_describe_prints_events_attributes_and_experiments(
    gateway: tuple[Gateway, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", "--user", "u"], default_address=gateway[1]) == 0
    out = capsys.readouterr().out
    assert "1970-01-01 00:00:00" in out
    assert "Seven" in out
    assert "occupation: writer" in out
    assert "left out of training" in out
    assert "experiment warm-start/treatment, first met 1970-01-01 00:01:00" in out


def test_an_option_before_the_command_counts_as_after_it(
    gateway: tuple[Gateway, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--address", gateway[1], "forget", "--user", "u"], default_address="127.0.0.1:1") == 0
    assert capsys.readouterr().out == "forgotten\n"
