"""The one room that uses the network as a client; its addresses are data (``addresses.toml``)."""
