"""The PACS gateway: receives series, derives quiet ones, sends them; loses nothing on the way."""
