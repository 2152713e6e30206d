"""TLS contexts of outgoing connections."""

from __future__ import annotations

import ssl

from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Tls


def client_context(tls: Tls) -> ssl.SSLContext:
    """TLS context for connections to destinations, whose certificates are verified.

    Raises:
        DeliveryFailedError: if a certificate of the settings cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=tls.authority)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one
        message = "a certificate or key of the settings cannot be read"
        raise DeliveryFailedError("bad-certificate", message) from error
    return context
