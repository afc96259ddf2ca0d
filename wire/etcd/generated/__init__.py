"""Python made of the .proto files of the folder above by `make protos`; not for editing.

It is kept with the sources, so that installing Isochrone, reading it and checking its types need no compiler. The price
is that it can fall behind the .proto files; `tests/unit/wire/test_etcd_protos.py` makes it anew and compares.
"""
