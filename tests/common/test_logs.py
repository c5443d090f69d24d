"""The log of a service as a machine reads it: what a line holds, and what it can never hold."""

import asyncio
import json
import logging
import sys
import threading
from contextvars import copy_context
from typing import Any

from services.common.errors import InvalidInputError
from services.common.logs import FIELDS, log_loop_errors
from services.common.settings import LogFormat
from services.common.subject import Subject, set_subject
from services.common.tracing import enter_trace
from tests.common.captured_logs import captured_log

HASH = "cd" * 32
SECRET = 'eyJhbGciOi.secret\n"}{'
OURS = logging.getLogger("services.test")
THEIRS = logging.getLogger("somebody.else")


def logged(do: Any, form: LogFormat = LogFormat.JSON, level: str = "INFO") -> str:
    with captured_log(form, level) as stream:
        copy_context().run(do)
        return stream.getvalue()


def lines(do: Any, **options: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(do, **options).splitlines()]


def fail_about(text: str) -> None:
    try:
        try:
            json.loads(text)
        except ValueError as error:
            raise KeyError(text) from error
    except KeyError:
        OURS.exception("it failed")


def test_a_line_says_when_who_what_and_what_it_belongs_to() -> None:
    def work() -> None:
        OURS.info("not in a call")
        enter_trace(None, {"traceparent": f"00-{0xAB:032x}-{0xCD:016x}-00"}, "", {})
        set_subject(Subject(SECRET, HASH))
        OURS.warning("in %s", "a call", extra={FIELDS: {"verdict": "AUTHENTIC", "milliseconds": 1.5}})

    first, second = lines(work)
    assert first.keys() == {"time", "level", "service", "logger", "message"}
    assert first["time"].endswith("Z")
    assert (first["level"], first["service"], first["message"]) == ("INFO", "visual", "not in a call")
    assert second | {"time": ""} == {
        "time": "",
        "level": "WARNING",
        "service": "visual",
        "logger": "services.test",
        "message": "in a call",
        "trace_id": f"{0xAB:032x}",
        "span_id": f"{0xCD:016x}",
        "request_id": SECRET,
        "content_sha256": HASH,
        "verdict": "AUTHENTIC",
        "milliseconds": 1.5,
    }


def test_an_exception_is_typed_and_its_own_text_stays_out() -> None:
    (line,) = lines(lambda: fail_about("holiday.mp4"))
    told = line["exception"]
    assert told["type"] == "builtins.KeyError"
    assert told["stack"][-1].endswith(" fail_about")
    assert told["cause"]["type"] == "json.decoder.JSONDecodeError"
    assert "holiday" not in json.dumps(line)
    assert "holiday" not in logged(lambda: fail_about("holiday.mp4"), LogFormat.TEXT)


def test_the_text_of_an_error_of_ours_is_written() -> None:
    error = InvalidInputError("no such policy", reason="UNKNOWN_POLICY")
    (line,) = lines(lambda: OURS.error("refused", exc_info=error))
    assert line["exception"]["message"] == "no such policy"
    assert line["exception"]["reason"] == "UNKNOWN_POLICY"


def test_others_are_not_heard_in_detail_because_they_quote_headers() -> None:
    def work() -> None:
        THEIRS.debug("x-api-key: %s", SECRET)
        THEIRS.info("authorization: %s", SECRET)
        OURS.debug("we are heard")

    assert [line["message"] for line in lines(work, level="DEBUG")] == ["we are heard"]


def test_what_nobody_catches_is_a_line_too() -> None:
    def work() -> None:
        async def lose_a_task() -> None:
            asyncio.get_running_loop().set_exception_handler(log_loop_errors)
            task = asyncio.ensure_future(asyncio.to_thread(json.loads, "holiday.mp4"))
            await asyncio.wait((task,))
            del task
            await asyncio.sleep(0)

        asyncio.run(lose_a_task())
        thread = threading.Thread(target=json.loads, args=("holiday.mp4",))
        thread.start()
        thread.join()
        sys.excepthook(ValueError, ValueError("holiday.mp4"), None)

    found = lines(work)
    assert len(found) == 3
    assert all("JSONDecodeError" in str(line["exception"]) for line in found[:2])
    assert "holiday" not in json.dumps(found)


def test_text_is_one_line_for_people() -> None:
    text = logged(lambda: OURS.info("visual not ready: %s", "no model"), LogFormat.TEXT)
    assert text.endswith("INFO services.test: visual not ready: no model\n")
