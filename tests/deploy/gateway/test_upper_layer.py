"""The protocol as bytes: what a peer sends is understood or is a `ProtocolError`, nothing else."""

import random
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ, P_DATA_TF

from bench.robustness.network_abuse import (
    EXPLICIT_LE,
    MR_STORAGE,
    VERIFICATION,
    association_request,
    broken,
    store_pdus,
)
from stillscan.deploy.gateway.receiver.association import negotiate
from stillscan.deploy.gateway.receiver.command_set import (
    C_ECHO,
    C_STORE,
    OUT_OF_RESOURCES,
    Request,
    parse_request,
    response,
)
from stillscan.deploy.gateway.receiver.upper_layer import (
    APPLICATION_CONTEXT,
    IMPLEMENTATION_VERSION,
    TOO_MANY,
    ProtocolError,
    associate_accept,
    associate_reject,
    command_pdus,
    fragments,
    parse_associate_request,
)
from stillscan.deploy.gateway.settings import ReceiverSection
from stillscan.operators.writing.provenance import IMPLEMENTATION_CLASS_UID

HEADER = 6


def test_a_request_is_understood():
    request = parse_associate_request(association_request()[HEADER:])
    assert (request.called, request.calling) == ("STILLSCAN", "ABUSER")
    assert [each.abstract_syntax for each in request.proposals] == [MR_STORAGE, VERIFICATION]
    assert request.proposals[0].transfer_syntaxes == (EXPLICIT_LE,)
    assert request.max_length == 16384


def test_pynetdicom_understands_our_acceptance():
    request = parse_associate_request(association_request()[HEADER:])
    pdu = A_ASSOCIATE_AC()
    pdu.decode(associate_accept(request, negotiate(request.proposals), 131072))
    understood = pdu.to_primitive()
    assert understood.maximum_length_received == 131072
    contexts = understood.presentation_context_definition_results_list
    assert [(each.context_id, each.result) for each in contexts] == [(1, 0), (3, 0)]
    assert contexts[0].transfer_syntax == [EXPLICIT_LE]


def test_pynetdicom_understands_our_rejection():
    pdu = A_ASSOCIATE_RJ()
    pdu.decode(associate_reject(TOO_MANY))
    assert (pdu.result, pdu.source, pdu.reason_diagnostic) == (2, 3, 2)


@pytest.mark.parametrize("max_length", [0, 7, 50, 16384])
def test_a_response_comes_in_pdus_that_the_peer_takes(max_length):
    request = Request(C_STORE, 77, MR_STORAGE, "1.2.3", True)
    encoded = response(request, OUT_OF_RESOURCES, "no room")
    pieces = b""
    for encoded_pdu in command_pdus(5, encoded, max_length):
        assert not max_length or len(encoded_pdu) - HEADER <= max_length
        pdu = P_DATA_TF()
        pdu.decode(encoded_pdu)
        ((context_id, value),) = pdu.to_primitive().presentation_data_value_list
        assert context_id == 5
        pieces += value[1:]
        last = value[0]
    assert pieces == encoded
    assert last == 3


def test_a_peer_that_takes_nothing_breaks_the_protocol():
    with pytest.raises(ProtocolError):
        list(command_pdus(1, b"x", 6))


@pytest.mark.parametrize("field", [C_STORE, C_ECHO])
def test_a_response_names_what_it_responds_to(field):
    encoded = response(Request(field, 7, MR_STORAGE, "1.2.3", False), 0)
    elements = parse_elements(encoded)
    assert int.from_bytes(elements[0x0100], "little") == field | 0x8000
    assert int.from_bytes(elements[0x0120], "little") == 7
    assert elements[0x1000] == b"1.2.3\0"
    assert int.from_bytes(elements[0x0000], "little") == len(encoded) - 12


def parse_elements(encoded: bytes) -> dict[int, bytes]:
    elements, at = {}, 0
    while at < len(encoded):
        length = int.from_bytes(encoded[at + 4 : at + 8], "little")
        number = int.from_bytes(encoded[at + 2 : at + 4], "little")
        elements[number] = encoded[at + 8 : at + 8 + length]
        at += 8 + length
    return elements


def understand(pdu: bytes) -> None:
    """Read it in every way; whatever is not understood says so."""
    for read in (
        parse_associate_request,
        parse_request,
        lambda body: list(fragments(memoryview(body))),
    ):
        with suppress(ProtocolError):
            read(pdu)


@given(st.binary(max_size=400))
def test_any_bytes_are_understood_or_refused(data):
    understand(data)


@settings(max_examples=1000, deadline=None)
@given(st.integers(min_value=0))
def test_mutated_pdus_are_understood_or_refused(seed):
    chance = random.Random(seed)
    for pdu in (association_request(), *store_pdus(1)):
        understand(broken(pdu, chance)[HEADER:])
        understand(broken(pdu, chance)[HEADER + 6 :])  # the command set itself


def test_the_conformance_statement_names_what_we_call_ourselves():
    statement = Path(__file__).parents[3].joinpath("docs", "conformance.md").read_text()
    network = statement.split("## Network: the gateway")[1].split("\n## ")[0]
    for said in (APPLICATION_CONTEXT, IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION):
        assert said in network
    assert f"{ReceiverSection().max_pdu} bytes" in network
    assert version("pynetdicom") in network
