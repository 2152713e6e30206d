"""The PACS gateway: receives series, denoises them and sends the derived series to destinations."""
