"""Settings of the gateway: `gateway.yaml`, read once at the start into frozen dataclasses.

An unknown key is an error. Every setting has a default that works on a laptop: loopback addresses,
folders below `data`, no destinations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from stillscan.app.settings import Mode, Strength
from stillscan.app.settings_reader import Allowed, between, parse_dataclass, read_yaml
from stillscan.operators.errors import SettingsError

DestinationKind = Literal["c-store", "stow-rs", "folder"]
Confirmation = Literal["none", "storage-commitment", "query"]
MissingPolicy = Literal["refuse", "process"]

LOOPBACK = "127.0.0.1"
MAX_PDU = 128 * 2**10  # bytes; checked before anything is allocated (S6)
YEAR_S = 31_536_000
HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _is_address(value: str) -> bool:
    try:
        ip_address(value)
    except ValueError:
        return False
    return True


def _is_service(url: str) -> bool:
    try:
        parts = urlsplit(url)
        _ = parts.port  # ValueError if it is not a port
    except ValueError:
        return False
    plain = not (parts.username or parts.query or parts.fragment or re.search(r"[\s\\]", url))
    whole = parts.scheme in ("http", "https") and parts.hostname and plain
    return bool(whole) and not parts.path.rstrip("/").endswith("/studies")


Port = Annotated[int, between(1, 65535)]
Seconds = Annotated[float, between(0, YEAR_S)]
Limit = Annotated[float, between(0.05, YEAR_S)]  # seconds; 0 would allow nothing
Count = Annotated[int, between(1, 10_000)]
Megabytes = Annotated[int, between(1, 65_536)]
Share = Annotated[float, Allowed("a share above 0, up to 1", lambda value: 0 < value <= 1)]
AeTitle = Annotated[  # PS3.5 table 6.2-1
    str,
    Allowed(
        "1 to 16 printable ASCII characters, no backslash, no space at the ends",
        lambda value: re.fullmatch(r"(?! )[ -\[\]-~]{1,16}(?<! )", value) is not None,
    ),
]
Address = Annotated[str, Allowed("the IP address of one host, no range, no name", _is_address)]
Host = Annotated[
    str,
    Allowed(
        "an IP address or the name of a host, without a port",
        lambda value: _is_address(value) or HOST_NAME.fullmatch(value) is not None,
    ),
]
Url = Annotated[
    str,
    Allowed("an address that begins with http:// or https://, without '/studies'", _is_service),
]
Name = Annotated[
    str,
    Allowed(
        "1 to 64 characters, no control characters, no space at the ends",
        lambda value: 0 < len(value) <= 64 and value.isprintable() and value == value.strip(),
    ),
]


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

    ae_title: AeTitle
    hosts: tuple[Address, ...] = ()


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

    host: Host = LOOPBACK
    port: Port = 11112
    ae_title: AeTitle = "STILLSCAN"
    any_called_ae_title: bool = False
    peers: tuple[Peer, ...] = ()
    max_pdu: Annotated[int, between(4096, 2**20)] = MAX_PDU
    max_associations: Count = 32
    max_associations_per_host: Count = 16
    negotiation_s: Limit = 5.0
    idle_s: Limit = 60.0
    association_s: Limit = 14400.0
    max_instance_mb: Megabytes = 2048
    drain_s: Seconds = 30.0
    tls: Tls | None = None


@dataclass(frozen=True)
class WebSection:
    """Status page, /metrics, /healthz and STOW-RS.

    Attributes:
        token_file: file with the tokens for retries and STOW-RS; None: neither is possible.
        user_header: HTTP header in which a reverse proxy names the user, for the log.
        stow: whether STOW-RS is offered.
        max_request_mb: maximum size of a STOW-RS request.
        names: whether the pages of jobs show SeriesNumber, SeriesDescription, body part and date.
    """

    host: Host = LOOPBACK
    port: Port = 8080
    token_file: Path | None = None
    user_header: str = ""
    stow: bool = True
    max_request_mb: Megabytes = 2048
    names: bool = False
    tls: Tls | None = None


@dataclass(frozen=True)
class StorageSection:
    """Use of the disk, and retention.

    Attributes:
        most_used: used share of the file system above which no instance is accepted (0xA700).
        retention_h: how long instances, derived series and reports are kept after their job ended.
        history_days: how long the records of jobs are kept.
    """

    most_used: Share = 0.9
    retention_h: Annotated[float, between(0.1, 87_600)] = 72.0
    history_days: Annotated[float, between(0.1, 36_500)] = 365.0


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

    quiet_s: Seconds = 60.0
    settled_s: Seconds = 5.0
    patience_s: Seconds = 600.0
    missing: MissingPolicy = "refuse"

    def __post_init__(self) -> None:
        """Refuse to close an incomplete series before a complete one."""
        if self.patience_s < self.settled_s:
            raise ValueError(
                f"'patience-s' is {self.patience_s:g}; expected at least 'settled-s', "
                f"{self.settled_s:g}"
            )


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

    timeout_s: Limit = 1800.0
    attempts: Count = 3
    backoff_s: Seconds = 10.0
    memory_mb: Annotated[int, between(64, 2**20)] | None = None
    drain_s: Seconds = 60.0


@dataclass(frozen=True)
class SenderSection:
    """How derived series are delivered.

    Attributes:
        attempts: maximum attempts; then the delivery has failed until an operator retries it.
        backoff_s: wait before the second attempt; doubled for each further one.
        backoff_most_s: maximum wait between two attempts.
        timeout_s: time limit for a connection and for each response.
        confirm_s: time limit for the report of a requested storage commitment.
        drain_s: how long a running delivery may continue after SIGTERM.
    """

    attempts: Count = 8
    backoff_s: Seconds = 30.0
    backoff_most_s: Seconds = 3600.0
    timeout_s: Limit = 30.0
    confirm_s: Limit = 3600.0
    drain_s: Seconds = 30.0

    def __post_init__(self) -> None:
        """Refuse a longest wait that is shorter than the first."""
        if self.backoff_most_s < self.backoff_s:
            raise ValueError(
                f"'backoff-most-s' is {self.backoff_most_s:g}; expected at least 'backoff-s', "
                f"{self.backoff_s:g}"
            )


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
        confirmation: what a delivery needs besides the acknowledgements: `storage-commitment` (kind
            c-store), `query` (kind stow-rs: QIDO-RS lists every instance), or `none`.
        rejection_notes: whether a rejection note (Key Object Selection, 113038 DCM) follows a
            derived series whose instances were received again with another patient or order.
        tls: certificates for C-STORE over TLS, or for STOW-RS.
    """

    name: Name
    kind: DestinationKind
    host: Host = ""
    port: Port = 104
    ae_title: AeTitle = ""
    calling_ae_title: AeTitle = "STILLSCAN"
    url: Url = ""
    token_file: Path | None = None
    folder: Path | None = None
    confirmation: Confirmation = "none"
    rejection_notes: bool = False
    tls: Tls | None = None

    def __post_init__(self) -> None:
        """Refuse a destination without an address, or with keys of another kind."""
        required, others = KEYS[self.kind]
        for key in required:
            if not getattr(self, key):
                shown = key.replace("_", "-")
                raise ValueError(f"destination '{self.name}' of kind {self.kind} needs '{shown}'")
        for each in fields(self)[2:]:
            value = getattr(self, each.name)
            if each.name not in (*required, *others) and value != each.default:
                shown = each.name.replace("_", "-")
                raise ValueError(
                    f"'{shown}' is {str(value)!r}; a destination of kind {self.kind} has no such "
                    "key"
                )
        if self.confirmation not in ("none", CONFIRMATIONS.get(self.kind)):
            raise ValueError(
                f"'confirmation' is '{self.confirmation}'; for kind {self.kind} expected none or "
                f"{CONFIRMATIONS.get(self.kind)}"
            )
        if self.tls is not None and self.url.startswith("http://"):
            raise ValueError(f"'url' is '{self.url}'; with 'tls' expected https://")


CONFIRMATIONS: Mapping[DestinationKind, Confirmation] = {
    "c-store": "storage-commitment",
    "stow-rs": "query",
}
# by kind of destination: required keys, and the others that it may have
KEYS: Mapping[DestinationKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "c-store": (
        ("host", "ae_title"),
        ("port", "calling_ae_title", "confirmation", "rejection_notes", "tls"),
    ),
    "stow-rs": (("url",), ("token_file", "confirmation", "rejection_notes", "tls")),
    "folder": (("folder",), ("rejection_notes",)),
}


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

    name: Name
    match: Mapping[str, Name] = field(default_factory=dict)
    process: bool = True
    bundle: Name | None = None
    mode: Mode | None = None
    strength: Strength | None = None
    priority: Annotated[int, between(-1_000_000, 1_000_000)] = 0
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
        """Refuse duplicate names, rules with an unknown destination, one port for two purposes."""
        receiver, web = self.receiver, self.web
        one_host = receiver.host == web.host or {receiver.host, web.host} & {"0.0.0.0", "::"}
        if receiver.port == web.port != 0 and one_host:
            raise ValueError(
                f"'web.port' is {web.port}; expected another port than 'receiver.port'"
            )
        if receiver.max_associations_per_host > receiver.max_associations:
            raise ValueError(
                f"'receiver.max-associations-per-host' is {receiver.max_associations_per_host}; "
                f"expected at most 'max-associations', {receiver.max_associations}"
            )
        known = [each.name for each in self.destinations]
        for names, what in ((known, "destinations"), ([r.name for r in self.rules], "rules")):
            if len(set(names)) < len(names):
                raise ValueError(f"two {what} have the same name")
        for rule in self.rules:
            if len(set(rule.destinations)) < len(rule.destinations):
                raise ValueError(f"rule '{rule.name}' names a destination twice")
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
        """Pages by job number: `reports/<job>/<SeriesInstanceUID>.html`."""
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
        SettingsError: if the file cannot be read, is empty or is not ASCII.
    """
    if file is None:
        return None
    try:
        token = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"token file '{file}' cannot be read; expected ASCII text") from error
    if not token or not token.isprintable():
        raise SettingsError(f"token file '{file}' is empty or has several lines; expected one line")
    return token


def users_of(file: Path | None) -> dict[str, str]:
    """Tokens by user: lines `USER TOKEN`, or one token alone, of the user `operator`.

    Raises:
        SettingsError: if the file cannot be read, or a line is not as above.
    """
    if file is None:
        return {}
    try:
        lines = [line.split() for line in file.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"token file '{file}' cannot be read; expected ASCII text") from error
    lines = [line for line in lines if line]
    if len(lines) == 1 and len(lines[0]) == 1:
        lines[0].insert(0, "operator")
    users = {line[0]: line[-1] for line in lines if len(line) == 2}
    if not lines or len(users) < len(lines) or len(set(users.values())) < len(users):
        raise SettingsError(
            f"token file '{file}' is empty or has a faulty line; expected one token, or a line "
            "USER TOKEN for each user, all different"
        )
    return users
