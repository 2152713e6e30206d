"""`gateway.yaml` becomes frozen dataclasses, once, at the start; an unknown key is an error.

Everything but `destinations` and `rules` has a default that a laptop can run with: loopback
addresses, and folders below `data`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stillscan.app.settings import Mode, Strength
from stillscan.app.settings_reader import parse_dataclass, read_yaml
from stillscan.operators.errors import SettingsError

DestinationKind = Literal["c-store", "stow-rs", "folder"]
MissingPolicy = Literal["refuse", "process"]

LOOPBACK = "127.0.0.1"
MAX_PDU = 128 * 2**10  # S6: bounded before anything is allocated
AE_TITLE_LENGTH = 16


@dataclass(frozen=True)
class Tls:
    """Certificates of one end of a TLS connection, as PEM files.

    Attributes:
        certificate, key: our own.
        authority: signs the certificates of those we talk to; None: no server is trusted
            (clients need no certificate) and the system's authorities for a client.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def __post_init__(self) -> None:
        """Refuse one half of a pair."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("'certificate' and 'key' belong together")


@dataclass(frozen=True)
class Peer:
    """Who may send.

    Attributes:
        ae_title: the calling AE title.
        hosts: addresses that it may call from; empty: any.
    """

    ae_title: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReceiverSection:
    """The DICOM listener (C-STORE, C-ECHO).

    Attributes:
        ae_title: ours; a caller must ask for it unless `any_called_ae_title`.
        peers: the allow-list; empty: everybody who reaches the port, which `host` keeps to this
            machine by default.
        max_pdu: bytes of one PDU, also as declared.
        max_associations, max_associations_per_host: at the same time; more are rejected.
        negotiation_s: until a connection has asked for an association.
        idle_s: between two messages of an association.
        association_s: of a whole association.
        max_instance_mb: the largest instance that is taken.
        drain_s: how long running associations may go on after SIGTERM.
    """

    host: str = LOOPBACK
    port: int = 11112
    ae_title: str = "STILLSCAN"
    any_called_ae_title: bool = False
    peers: tuple[Peer, ...] = ()
    max_pdu: int = MAX_PDU
    max_associations: int = 32
    max_associations_per_host: int = 16
    negotiation_s: float = 5.0
    idle_s: float = 60.0
    association_s: float = 14400.0
    max_instance_mb: int = 2048
    drain_s: float = 30.0
    tls: Tls | None = None


@dataclass(frozen=True)
class WebSection:
    """Status page, /metrics, /healthz and STOW-RS.

    Attributes:
        token_file: its content authorises retries and STOW-RS; None: neither is possible.
        stow: whether STOW-RS is there.
        max_request_mb: the largest STOW-RS request.
    """

    host: str = LOOPBACK
    port: int = 8080
    token_file: Path | None = None
    stow: bool = True
    max_request_mb: int = 2048
    tls: Tls | None = None


@dataclass(frozen=True)
class StorageSection:
    """What lies on the disk, and how long.

    Attributes:
        most_used: share of the file system; beyond it nothing more is accepted (0xA700).
        retention_h: how long instances, derived series and reports stay after their series is done.
        history_days: how long the records of jobs stay.
    """

    most_used: float = 0.9
    retention_h: float = 72.0
    history_days: float = 365.0

    def __post_init__(self) -> None:
        """Refuse a share that is none."""
        if not 0 < self.most_used <= 1:
            raise ValueError(f"'most-used' is {self.most_used}; expected a share of 0 to 1")


@dataclass(frozen=True)
class CompletenessSection:
    """When a series is complete.

    Attributes:
        quiet_s: nothing of the series has come for so long.
        settled_s: the same, where its headers say how many instances there are and all have come.
        patience_s: the same, where its headers say that some are missing.
        missing: what then becomes of it: `refuse` (series-incomplete) or `process`.
    """

    quiet_s: float = 60.0
    settled_s: float = 5.0
    patience_s: float = 600.0
    missing: MissingPolicy = "refuse"


@dataclass(frozen=True)
class WorkerSection:
    """How jobs run.

    Attributes:
        timeout_s: a job that takes longer is stopped (`time-out`).
        attempts: how often a job that was stopped or failed by a fault of ours is tried.
        backoff_s: before the second attempt; doubled before each further one.
        memory_mb: address space of the worker; None: no limit.
        drain_s: how long a running job may go on after SIGTERM.
    """

    timeout_s: float = 1800.0
    attempts: int = 3
    backoff_s: float = 10.0
    memory_mb: int | None = None
    drain_s: float = 60.0


@dataclass(frozen=True)
class SenderSection:
    """How derived series are delivered.

    Attributes:
        attempts: after so many failures a delivery is dead until somebody retries it.
        backoff_s, backoff_most_s: before the second attempt; doubled before each further one.
        timeout_s: of a connection and of each answer.
        drain_s: how long a running delivery may go on after SIGTERM.
    """

    attempts: int = 8
    backoff_s: float = 30.0
    backoff_most_s: float = 3600.0
    timeout_s: float = 30.0
    drain_s: float = 30.0


@dataclass(frozen=True)
class Destination:
    """Where derived series go.

    Attributes:
        name: what rules call it.
        kind: `c-store`, `stow-rs` or `folder`.
        host, port, ae_title, calling_ae_title: of a C-STORE destination.
        url: of a STOW-RS service, without `/studies`.
        token_file: its content goes into the header Authorization of STOW-RS requests.
        folder: gets one folder for each derived series.
        tls: certificates for C-STORE over TLS, or for STOW-RS.
    """

    name: str
    kind: DestinationKind
    host: str = ""
    port: int = 104
    ae_title: str = ""
    calling_ae_title: str = "STILLSCAN"
    url: str = ""
    token_file: Path | None = None
    folder: Path | None = None
    tls: Tls | None = None

    def __post_init__(self) -> None:
        """Refuse a destination without an address."""
        needed: dict[DestinationKind, dict[str, object]] = {
            "c-store": {"host": self.host, "ae-title": self.ae_title},
            "stow-rs": {"url": self.url},
            "folder": {"folder": self.folder},
        }
        for key, value in needed[self.kind].items():
            if not value:
                raise ValueError(f"destination '{self.name}' of kind {self.kind} needs '{key}'")
        for title in (self.ae_title, self.calling_ae_title):
            if len(title) > AE_TITLE_LENGTH:
                raise ValueError(f"AE title '{title}' is longer than {AE_TITLE_LENGTH}")
        if self.kind == "stow-rs" and not self.url.startswith(("http://", "https://")):
            raise ValueError(f"url '{self.url}' begins with neither http:// nor https://")


@dataclass(frozen=True)
class Rule:
    """What is done with series whose headers match; the first rule that matches is taken.

    Attributes:
        name: for logs and the status page.
        match: pattern (`*t1*`, case does not count) by DICOM keyword, all of which must match one
            value of the attribute; `calling-ae-title` matches the sender. Empty: everything.
        process: False: the series is kept for the retention time and nothing else happens.
        bundle: name of a bundle; None for the one that fits the modality.
        mode, strength: as in `app.yaml`; None: what stands there.
        priority: higher ones run first.
        destinations: names; where the derived series goes.
    """

    name: str
    match: Mapping[str, str] = field(default_factory=dict)
    process: bool = True
    bundle: str | None = None
    mode: Mode | None = None
    strength: Strength | None = None
    priority: int = 0
    destinations: tuple[str, ...] = ()


EVERYTHING = Rule("everything")


@dataclass(frozen=True)
class GatewaySettings:
    """All settings of the gateway, as one value.

    Attributes:
        data: folder of spool, queue, outbox and reports; one file system.
        application: settings of the application (`app.yaml`); None: the shipped ones.
        models: folder of bundles; None: the shipped ones.
        rules: in their order; none: every series is processed and sent nowhere.
    """

    data: Path = Path("gateway-data")
    application: Path | None = None
    models: Path | None = None
    receiver: ReceiverSection = field(default_factory=ReceiverSection)
    web: WebSection = field(default_factory=WebSection)
    storage: StorageSection = field(default_factory=StorageSection)
    completeness: CompletenessSection = field(default_factory=CompletenessSection)
    worker: WorkerSection = field(default_factory=WorkerSection)
    sender: SenderSection = field(default_factory=SenderSection)
    destinations: tuple[Destination, ...] = ()
    rules: tuple[Rule, ...] = (EVERYTHING,)

    def __post_init__(self) -> None:
        """Refuse names that are used twice, and rules that send to nowhere known."""
        known = [each.name for each in self.destinations]
        for names, what in ((known, "destinations"), ([r.name for r in self.rules], "rules")):
            if len(set(names)) < len(names):
                raise ValueError(f"two {what} have one name")
        for rule in self.rules:
            for name in rule.destinations:
                if name not in known:
                    raise ValueError(
                        f"rule '{rule.name}' sends to '{name}', which is no destination; "
                        f"there are: {', '.join(known) or 'none'}"
                    )


@dataclass(frozen=True)
class Places:
    """Where things lie below `data`."""

    data: Path

    @property
    def database(self) -> Path:
        """Series, jobs, deliveries and counters (SQLite)."""
        return self.data / "gateway.sqlite"

    @property
    def incoming(self) -> Path:
        """Acknowledged instances that are in no series yet."""
        return self.data / "incoming"

    @property
    def quarantine(self) -> Path:
        """Instances that cannot be filed, and what else was found in `incoming`."""
        return self.data / "quarantine"

    def heart(self, part: str) -> Path:
        """Its time of change says until when the part has promised to be back (`heart.py`)."""
        return self.data / f"{part}.heart"

    def in_hand(self, part: str) -> Path:
        """What the part is working on, one name a line."""
        return self.data / f"{part}.in-hand"

    @property
    def instances(self) -> Path:
        """Instances by the first two digits of their name."""
        return self.data / "instances"

    @property
    def work(self) -> Path:
        """Of running jobs; emptied at the start."""
        return self.data / "work"

    @property
    def outbox(self) -> Path:
        """Derived series by job number: `outbox/<job>/<SeriesInstanceUID>/*.dcm`."""
        return self.data / "outbox"

    @property
    def reports(self) -> Path:
        """Pictures and pages by job number: `reports/<job>/<SeriesInstanceUID>.png`, `.html`."""
        return self.data / "reports"


def load_gateway_settings(path: Path | None) -> GatewaySettings:
    """Read the settings from a YAML file; without one, all defaults.

    Raises:
        SettingsError: if the file cannot be read, a key is unknown or missing, or a value is wrong.
    """
    if path is None:
        return GatewaySettings()
    return parse_gateway_settings(read_yaml(path), str(path))


def parse_gateway_settings(document: object, source: str = "settings") -> GatewaySettings:
    """Turn a parsed YAML document into settings; `source` names it in messages.

    Raises:
        SettingsError: if a key is unknown or missing, or a value is wrong.
    """
    return parse_dataclass(GatewaySettings, document, source)


def token_of(file: Path | None) -> str | None:
    """The content of a token file without the white space around it; None without a file.

    Raises:
        SettingsError: if the file cannot be read or is empty.
    """
    if file is None:
        return None
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"token file {file} cannot be read") from error
    if not token:
        raise SettingsError(f"token file {file} is empty")
    return token
