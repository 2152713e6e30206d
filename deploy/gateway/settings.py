"""Settings of the gateway: `gateway.yaml`, read once at the start into frozen dataclasses.

An unknown key is an error. Every setting has a default that works on a laptop: loopback addresses,
folders below `data`, no destinations.
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
MAX_PDU = 128 * 2**10  # bytes; checked before anything is allocated (S6)
AE_TITLE_LENGTH = 16


@dataclass(frozen=True)
class Tls:
    """Certificates of one end of a TLS connection, as PEM files.

    Attributes:
        certificate, key: of the gateway.
        authority: CA certificate that must have signed the certificate of the peer. None: as a
            server, clients need no certificate; as a client, the system's authorities are used.
    """

    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None

    def __post_init__(self) -> None:
        """Refuse a certificate without a key, or a key without a certificate."""
        if (self.certificate is None) != (self.key is None):
            raise ValueError("'certificate' and 'key' belong together")


@dataclass(frozen=True)
class Peer:
    """A permitted sender.

    Attributes:
        ae_title: the calling AE title.
        hosts: permitted addresses; empty: any.
    """

    ae_title: str
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReceiverSection:
    """The DICOM listener (C-STORE, C-ECHO).

    Attributes:
        ae_title: AE title of the gateway, required as called AE title unless `any_called_ae_title`.
        peers: the permitted senders; empty: anyone who can reach the port (by default `host` limits
            that to this machine).
        max_pdu: maximum length of a PDU in bytes, checked at its header.
        max_associations, max_associations_per_host: at the same time; further ones are rejected.
        negotiation_s: time limit from the connection to the complete association request.
        idle_s: time limit between two messages of an association.
        association_s: time limit of a whole association.
        max_instance_mb: maximum size of an instance.
        drain_s: how long open associations may continue after SIGTERM.
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
        token_file: file with the token for retries and STOW-RS; None: neither is possible.
        stow: whether STOW-RS is offered.
        max_request_mb: maximum size of a STOW-RS request.
    """

    host: str = LOOPBACK
    port: int = 8080
    token_file: Path | None = None
    stow: bool = True
    max_request_mb: int = 2048
    tls: Tls | None = None


@dataclass(frozen=True)
class StorageSection:
    """Use of the disk, and retention.

    Attributes:
        most_used: used share of the file system above which no instance is accepted (0xA700).
        retention_h: how long instances, derived series and reports are kept after their job ended.
        history_days: how long the records of jobs are kept.
    """

    most_used: float = 0.9
    retention_h: float = 72.0
    history_days: float = 365.0

    def __post_init__(self) -> None:
        """Refuse a share that is not between 0 and 1."""
        if not 0 < self.most_used <= 1:
            raise ValueError(f"'most-used' is {self.most_used}; expected a share above 0, up to 1")


@dataclass(frozen=True)
class CompletenessSection:
    """When a series counts as complete: after so many seconds without a new instance.

    Attributes:
        quiet_s: if the headers do not state how many images the series has.
        settled_s: if the headers state the number of images and all have arrived.
        patience_s: if the headers state the number of images and some are missing.
        missing: what happens to a series with missing images: `refuse` (series-incomplete) or
            `process`.
    """

    quiet_s: float = 60.0
    settled_s: float = 5.0
    patience_s: float = 600.0
    missing: MissingPolicy = "refuse"


@dataclass(frozen=True)
class WorkerSection:
    """How jobs run.

    Attributes:
        timeout_s: time limit of an attempt (`time-out`).
        attempts: maximum attempts at a job that was stopped, or failed by a fault of the gateway.
        backoff_s: wait before the second attempt; doubled for each further one.
        memory_mb: address space that the worker may use beyond what it has once it is ready; None:
            no limit.
        drain_s: how long a running job may continue after SIGTERM.
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
        attempts: maximum attempts; then the delivery has failed until an operator retries it.
        backoff_s: wait before the second attempt; doubled for each further one.
        backoff_most_s: maximum wait between two attempts.
        timeout_s: time limit for a connection and for each response.
        drain_s: how long a running delivery may continue after SIGTERM.
    """

    attempts: int = 8
    backoff_s: float = 30.0
    backoff_most_s: float = 3600.0
    timeout_s: float = 30.0
    drain_s: float = 30.0


@dataclass(frozen=True)
class Destination:
    """A destination of derived series.

    Attributes:
        name: used in `destinations` of rules.
        kind: `c-store`, `stow-rs` or `folder`.
        host, port, ae_title: of the C-STORE destination.
        calling_ae_title: AE title of the gateway there.
        url: of the STOW-RS service, without `/studies`.
        token_file: its content becomes the header Authorization of STOW-RS requests.
        folder: receives one subfolder for each derived series.
        rejection_notes: whether a rejection note (Key Object Selection, 113038 DCM) follows a
            derived series whose instances were received again with another patient or order.
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
    rejection_notes: bool = False
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
            raise ValueError(f"url '{self.url}' must begin with http:// or https://")


@dataclass(frozen=True)
class Rule:
    """What is done with matching series; the first rule that matches a series is applied.

    Attributes:
        name: for logs and the status page.
        match: pattern (`*t1*`, not case-sensitive) by DICOM keyword; `calling-ae-title` is the
            sender. All patterns must match; of an attribute with several values, one must. Empty:
            every series matches.
        process: False: the series is not processed, only kept for the retention time.
        bundle: name of a bundle; None: chosen by modality.
        mode, strength: as in `app.yaml`; None: the values of that file.
        priority: jobs with a higher priority run first.
        destinations: names of the destinations of the derived series.
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
    """All settings of the gateway.

    Attributes:
        data: folder of spool, record, outbox and reports, all on one file system.
        application: settings file of the application; None: the shipped `app.yaml`.
        models: folder of bundles; None: the shipped bundles.
        rules: in order of precedence; by default every series is processed and not sent.
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
        """Refuse duplicate names, and rules with an unknown destination."""
        known = [each.name for each in self.destinations]
        for names, what in ((known, "destinations"), ([r.name for r in self.rules], "rules")):
            if len(set(names)) < len(names):
                raise ValueError(f"two {what} have the same name")
        for rule in self.rules:
            for name in rule.destinations:
                if name not in known:
                    raise ValueError(
                        f"rule '{rule.name}' sends to '{name}', which is not among the "
                        f"destinations ({', '.join(known) or 'none'})"
                    )


@dataclass(frozen=True)
class Places:
    """Files and folders below `data`."""

    data: Path

    @property
    def database(self) -> Path:
        """The record: series, jobs, deliveries and counters (SQLite)."""
        return self.data / "gateway.sqlite"

    @property
    def incoming(self) -> Path:
        """Acknowledged instances that are not filed into a series yet."""
        return self.data / "incoming"

    @property
    def quarantine(self) -> Path:
        """Instances that cannot be filed, and foreign files that were found in `incoming`."""
        return self.data / "quarantine"

    def heartbeat(self, part: str) -> Path:
        """Its modification time is when the next heartbeat of the part is due (`heartbeat.py`)."""
        return self.data / f"{part}.heartbeat"

    def in_progress(self, part: str) -> Path:
        """Names of the files that the part is working on, one per line."""
        return self.data / f"{part}.in-hand"

    @property
    def instances(self) -> Path:
        """Filed instances, in subfolders by the first two digits of their name."""
        return self.data / "instances"

    @property
    def work(self) -> Path:
        """Temporary files of running jobs; emptied at the start."""
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
    """Read the settings from a YAML file; None: the default of every setting.

    Raises:
        SettingsError: if the file cannot be read, a key is unknown or missing, or a value is wrong.
    """
    if path is None:
        return GatewaySettings()
    return parse_gateway_settings(read_yaml(path), str(path))


def parse_gateway_settings(document: object, source: str = "settings") -> GatewaySettings:
    """Convert a parsed YAML document to settings; messages refer to it as `source`.

    Raises:
        SettingsError: if a key is unknown or missing, or a value is wrong.
    """
    return parse_dataclass(GatewaySettings, document, source)


def token_of(file: Path | None) -> str | None:
    """The content of a token file without surrounding white space; None without a file.

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
