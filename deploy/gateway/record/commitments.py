"""Reports of storage commitment (PS3.4 J.3.3): what a destination confirms to have stored."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import UID


@dataclass(frozen=True)
class CommitmentReport:
    """One report.

    Attributes:
        transaction_uid: of the request.
        committed: SOPInstanceUIDs for which the destination takes responsibility.
        failed: number of instances for which it does not.
    """

    transaction_uid: str
    committed: frozenset[str]
    failed: int


def commitment_report(encoded: bytes, syntax: str) -> CommitmentReport:
    """Read the data set of an N-EVENT-REPORT; what pydicom raises for a damaged one passes."""
    implicit = UID(syntax).is_implicit_VR
    return report_in(read_dataset(BytesIO(encoded), implicit, is_little_endian=True))


def report_in(dataset: Dataset) -> CommitmentReport:
    """The report in a data set."""
    committed = dataset.get("ReferencedSOPSequence") or []
    return CommitmentReport(
        str(dataset.TransactionUID),
        frozenset(str(each.ReferencedSOPInstanceUID) for each in committed),
        len(dataset.get("FailedSOPSequence") or []),
    )
