"""What ``pytest --pyargs dpcore.testing --dpcore-adapter KIND:NAME`` collects: see :mod:`dpcore.testing.adapter`."""
