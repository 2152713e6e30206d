"""`make soak`: the gateway's promises, against a real PACS and every fault we know of."""
