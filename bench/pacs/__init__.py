"""A simulated hospital around the gateway, on loopback in a network namespace of its own.

namespace   a process whose network and mounts are its own
scanner     synthetic series, and the peers that send them
site        the gateway and Orthanc as processes that can be killed
unreliable  a PACS that refuses, aborts, is slow, or answers with a chosen status
"""
