"""The run-time type checker of the tests: beartype, with an int wherever a float will do."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
