"""What goes over the wire: the objects of the REST api, shared by the api and the Python client.

One file per resource. Fields may be added, never changed or removed.
"""
