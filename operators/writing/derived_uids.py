"""UIDs of what is derived: the same source, weights and settings give the same UID (W2)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from hashlib import sha256

from stillscan.operators.writing.provenance import Provenance

_UID_NAMESPACE = uuid.UUID("3b5503b1-8189-4863-b509-2684778214f7")


def derived_series_uid(
    source_series_uid: str,
    source_instance_uids: Iterable[str],
    provenance: Provenance,
    options: Mapping[str, object],
) -> str:
    """Return the SeriesInstanceUID of the derived series of this instance set (W2).

    Equal arguments give the same UID, so that a repeat is idempotent; a late slice, other weights
    or another setting give another one.

    Args:
        source_series_uid: SeriesInstanceUID of the source.
        source_instance_uids: SOPInstanceUID of every instance of the source, in any order.
        provenance: everything that can change a pixel.
        options: everything that can change a header, by name.
    """
    made_by = asdict(provenance)
    made_by["borne_out"] = made_by.pop("confirmed_share")  # the name is part of existing UIDs
    for name in ("pass_through_mm", "temporal"):
        if not made_by[name]:
            del made_by[name]
    return _uid("series", source_series_uid, sorted(source_instance_uids), made_by, options)


def derived_instance_uid(derived_series_uid: str, source_instance_uid: str) -> str:
    """Return the SOPInstanceUID of the image derived from this source instance."""
    return _uid("instance", derived_series_uid, source_instance_uid)


def object_uid(derived_series_uid: str, *names: str | int) -> str:
    """Return the UID of an object for this derived series, or of a series of such objects."""
    return _uid("object", derived_series_uid, *names)


def _uid(*entropy: object) -> str:
    """Return a UUID-derived UID (PS3.5 B.2), by SHA-256 so that no crafted UID collides."""
    digest = sha256(json.dumps(entropy, sort_keys=True).encode()).hexdigest()
    return f"2.25.{uuid.uuid5(_UID_NAMESPACE, digest).int}"
