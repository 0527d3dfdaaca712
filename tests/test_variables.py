"""Variables: their values and formats, what they become in each place, the escape, and what is refused."""

from __future__ import annotations

import contextlib
import json
import time
from urllib.parse import unquote

import pytest
from helpers import define
from hypothesis import given
from hypothesis import strategies as st

from app.declared import variables
from app.declared.variables import (
    NAMES,
    Moment,
    Named,
    Unfilled,
    compile_header,
    compile_json,
    compile_text,
    compile_url,
    names_of,
    secrets_of,
)
from app.urls import parse_target

SLOT = 1_790_000_040_000  # 2026-09-21T14:14:00Z, two hours later in Berlin
BERLIN = Named("Europe/Berlin", "Prüfung “A”, 100%")
MOMENT = Moment(
    execution=f"acme:nightly:{SLOT}",
    workspace="acme",
    trigger="nightly",
    attempt=2,
    scheduled_at=SLOT,
    started_at=SLOT + 1234,
    previous=lambda: SLOT - 60_000,
    secrets={"NAME": "hunter2", "odd": '%/"ü\\', "lines": "a\r\nx: y", "token-2": "100% ~"},
)


def text_of(template: str, named: Named = BERLIN, moment: Moment = MOMENT) -> str:
    return compile_text(template, named).render(moment).decode()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("scheduled_at", "2026-09-21T14:14:00.000Z"),
        ("scheduled_at.unix", "1790000040"),
        ("scheduled_at.unix_ms", "1790000040000"),
        ("scheduled_at.date", "2026-09-21"),
        ("scheduled_at.time", "14:14:00"),
        ("scheduled_at.compact", "20260921T141400Z"),
        ("scheduled_at.local", "2026-09-21T16:14:00.000+02:00"),
        ("scheduled_at.local_date", "2026-09-21"),
        ("scheduled_at.local_time", "16:14:00"),
        ("scheduled_at.local_compact", "20260921T161400+0200"),
        ("previous_at", "2026-09-21T14:13:00.000Z"),
        ("previous_at.local_time", "16:13:00"),
        ("started_at", "2026-09-21T14:14:01.234Z"),
        ("started_at.unix_ms", "1790000041234"),
        ("execution.id", f"acme:nightly:{SLOT}"),
        ("attempt", "2"),
        ("workspace", "acme"),
        ("trigger", "nightly"),
        ("trigger.name", "Prüfung “A”, 100%"),
        ("secret.NAME", "hunter2"),
    ],
)
def test_every_variable_has_its_value(name: str, value: str) -> None:
    assert text_of(f"<{{{{{name}}}}}|{{{{ {name}  }}}}>") == f"<{value}|{value}>"


def test_every_name_that_is_suggested_works_and_is_documented() -> None:
    for name in NAMES:
        assert text_of(f"{{{{{name}}}}}")
        base, _, suffix = name.rpartition(".")
        assert f"``{name}``" in str(variables.__doc__) or (
            f"``{base}``" in str(variables.__doc__) and f"``.{suffix}``" in str(variables.__doc__)
        )


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("previous_at")])
def test_without_a_slot_before_its_time_is_empty_text(name: str) -> None:
    first = Moment("e", "w", "t", 1, SLOT, SLOT, lambda: None)
    assert text_of(f"[{{{{{name}}}}}]", moment=first) == "[]"


def test_the_slot_before_is_asked_for_only_where_it_is_used() -> None:
    def never() -> int | None:
        raise AssertionError("asked")

    assert (
        text_of("{{scheduled_at.date}}", moment=Moment("e", "w", "t", 1, SLOT, SLOT, never)) == "2026-09-21"
    )


@pytest.mark.parametrize(
    ("template", "result"),
    [
        ("{{{{", "{{"),
        ("{{{{attempt}}", "{{attempt}}"),
        ("{{{{ {{attempt}} }}", "{{ 2 }}"),
        ("{{{{{{attempt}}", "{{2"),
        ("{{{{{{{{", "{{{{"),
        ("{ {attempt} }} } {", "{ {attempt} }} } {"),
        ("{{attempt}}}}", "2}}"),
        ("{{attempt}}{{attempt}}", "22"),
        ("", ""),
    ],
)
def test_four_braces_stand_for_two(template: str, result: str) -> None:
    assert text_of(template) == result


@given(st.text(alphabet='{}a\u00fc"\\', max_size=30).filter(lambda text: "{{{" not in text))
def test_any_text_can_be_written_with_the_escape(text: str) -> None:
    assert text_of(text.replace("{{", "{{{{")) == text


@pytest.mark.parametrize(
    ("template", "parts"),
    [
        ("{{shedule_at}}", ["'shedule_at'", "did you mean 'scheduled_at'", "'{{{{'"]),
        ("{{scheduled_at.unixms}}", ["did you mean 'scheduled_at.unix_ms'"]),
        ("{{scheduled_at.}}", ["unknown variable", "did you mean 'scheduled_at'"]),
        ("{{trigger.id}}", ["did you mean 'trigger"]),
        ("{{#each items}}", ["unknown variable", "the variables are scheduled_at, "]),
        ("{{}}", ["unknown variable ''"]),
        ("{{secret}}", ["did you mean 'secret.NAME'"]),
        ("{{secret.}}", ["the name of a secret is"]),
        ("{{secret.2nd}}", ["'secret.2nd'", "begins with a letter"]),
        ("{{secret.a b}}", ["the name of a secret is"]),
        ("{{{attempt}}}", ["unknown variable '{attempt'"]),
        ("x {{attempt", ["never closed", "'{{{{'"]),
        ("{{attempt} }", ["never closed"]),
    ],
)
def test_what_is_unknown_or_open_is_refused_with_advice(template: str, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"variable|closed") as caught:
        variables.check(template)
    for part in parts:
        assert part in str(caught.value)


def path_of(url: str, named: Named = BERLIN) -> str:
    return compile_url(url, named)[2].render(MOMENT).decode()


@pytest.mark.parametrize(
    ("rest", "path"),
    [
        ("/{{scheduled_at}}", "/2026-09-21T14%3A14%3A00.000Z"),
        ("/a/{{trigger}}/b?at={{scheduled_at.unix}}&n={{attempt}}", "/a/nightly/b?at=1790000040&n=2"),
        ("?x={{trigger.name}}", "/?x=Pr%C3%BCfung%20%E2%80%9CA%E2%80%9D%2C%20100%25"),
        ("/für/{{attempt}}?x=ö#{{attempt}}", "/f%C3%BCr/2?x=%C3%B6"),
        ("/%7Bx%7d/{{attempt}}", "/%7Bx%7d/2"),
        ("/{{{{attempt}}", "/%7B%7Battempt%7D%7D"),
        ("/v0v/vv1vv/{{attempt}}", "/v0v/vv1vv/2"),
    ],
)
def test_in_a_url_values_are_percent_encoded(rest: str, path: str) -> None:
    assert path_of(f"http://host:81{rest}") == path


@given(
    st.from_regex(
        r"https?://[a-z]{1,9}(:[1-9][0-9]{1,3})?(/[a-zA-Z0-9%ü{}v._~-]{0,9}){1,3}(\?[a-z=&ö]*)?",
        fullmatch=True,
    )
)
def test_a_url_without_variables_is_quoted_as_ever(url: str) -> None:
    if "{{" not in url:
        origin, host, template = compile_url(url)
        assert (origin, host, template.render(MOMENT).decode()) == parse_target(url)


@given(st.text(max_size=30))
def test_a_value_comes_out_of_a_url_as_it_went_in(name: str) -> None:
    path = path_of("http://host/?q={{trigger.name}}&end", Named("UTC", name))
    assert path.isascii()
    assert unquote(path) == f"/?q={name}&end"


@pytest.mark.parametrize(
    "url",
    ["http://{{trigger}}.example.com/", "{{trigger}}://x/", "http://x:{{attempt}}/", "http://x{{attempt}}"],
)
def test_variables_stand_in_no_scheme_host_or_port(url: str) -> None:
    with pytest.raises(ValueError, match="path and the query only"):
        compile_url(url)


@pytest.mark.parametrize(
    "url", ["ftp://x/{{attempt}}", "http://a..b/{{attempt}}", "http://u:p@x/{{attempt}}"]
)
def test_a_url_with_variables_is_checked_as_any_other(url: str) -> None:
    with pytest.raises(ValueError, match=r"begins with|not the name|no user"):
        compile_url(url)


@given(st.text(max_size=30))
def test_in_a_header_values_are_printable_ascii_and_can_be_decoded(name: str) -> None:
    value = compile_header("by {{trigger.name}};", Named("UTC", name)).render(MOMENT).decode("ascii")
    assert value.isprintable()
    assert unquote(value) == f"by {name};"


@given(st.text(max_size=30))
def test_in_a_json_payload_values_are_escaped_in_names_and_strings(name: str) -> None:
    payload = b'{"{{trigger.name}}":["x{{trigger.name}}y","{{{{","\\"{{attempt}}"]}'
    rendered = compile_json(payload, Named("UTC", name)).render(MOMENT)
    assert json.loads(rendered) == {name: [f"x{name}y", "{{", '"2']}


def test_a_secret_is_fitted_to_its_place() -> None:
    assert path_of("http://host/{{secret.odd}}?t={{ secret.token-2 }}") == (
        "/%25%2F%22%C3%BC%5C?t=100%25%20~"
    )
    rendered = compile_json(b'{"{{secret.odd}}":"{{secret.lines}}"}', BERLIN).render(MOMENT)
    assert json.loads(rendered) == {MOMENT.secrets["odd"]: MOMENT.secrets["lines"]}
    assert text_of("{{secret.odd}}") == MOMENT.secrets["odd"]
    header = compile_header("Bearer {{secret.token-2}} {{trigger.name}}", BERLIN).render(MOMENT)
    assert header.startswith(b"Bearer 100% ~ Pr%C3%BCfung")  # a credential is not to be decoded


@pytest.mark.parametrize("name", ["lines", "odd"])
def test_a_secret_that_would_break_a_header_stops_the_request_and_is_not_told(name: str) -> None:
    with pytest.raises(Unfilled, match=f"'{name}'.*header") as caught:
        compile_header(f"Bearer {{{{secret.{name}}}}}", BERLIN).render(MOMENT)
    assert MOMENT.secrets[name] not in str(caught.value)


def test_a_secret_that_is_missing_stops_the_request() -> None:
    with pytest.raises(Unfilled, match="no secret 'other'"):
        text_of("{{secret.other}}")


def test_the_secrets_of_a_definition_are_told_by_their_places() -> None:
    definition = define(
        url="http://h/{{secret.a}}?{{attempt}}",
        headers={"X-A": "{{secret.b}} {{secret.a}}", "X-B": "{{{{secret.no}} secret.no"},
        payload=b'{"x":"{{ secret.c }}"}',
    )
    assert secrets_of(definition) == {"url": ["a"], "headers['X-A']": ["b", "a"], "payload": ["c"]}
    assert names_of(definition) == {"a", "b", "c"}
    assert secrets_of(define(payload=b'"plain"')) == {}


@pytest.mark.parametrize("filler", ["v", "vw"])
def test_a_url_that_looks_like_what_holds_a_variables_place_takes_no_longer(filler: str) -> None:
    url = f"http://x/{filler * 1000}{{{{attempt}}}}"
    assert path_of(url) == f"/{filler * 1000}{MOMENT.attempt}"
    begun = time.process_time()
    for _ in range(20):
        with contextlib.suppress(ValueError):  # with what holds the place it is too long
            compile_url("http://x/" + "v" * 8000 + "{{attempt}}")
    assert time.process_time() - begun < 0.3  # it was a second
