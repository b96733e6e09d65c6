"""From rows to the wire, as far as the caller's role may see them; one file per resource."""
