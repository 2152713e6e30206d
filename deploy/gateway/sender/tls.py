"""TLS contexts of outgoing connections."""

from __future__ import annotations

import ssl

from stillscan.deploy.gateway.sender.errors import DeliveryFailedError
from stillscan.deploy.gateway.settings import Tls


def client_context(tls: Tls) -> ssl.SSLContext:
    """TLS for connections that we open: the peer must prove who it is.

    Raises:
        DeliveryFailedError: if a certificate of ours cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=tls.authority)
        if tls.certificate is not None:
            context.load_cert_chain(tls.certificate, tls.key)
    except OSError as error:  # ssl.SSLError is one
        raise DeliveryFailedError("bad-certificate", "our own certificate: unreadable") from error
    return context
