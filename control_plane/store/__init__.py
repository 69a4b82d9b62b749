"""What the control plane remembers. Queries are grouped by resource; run them with `Store.read` and `Store.write`."""

from control_plane.store.changes import Change, Kind
from control_plane.store.database import Store

__all__ = ["Change", "Kind", "Store"]
